# %% [markdown]
# # 07 · Phase 3: talk while thinking
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/07_phase_3_talk_while_thinking.ipynb)
#
# At the end you will be able to
#
# - train a whole model that hears, thinks and speaks, with one loss for two mouths;
# - draw when each word was thought and when it was spoken, and say what the delay between the two is for;
# - measure which temperature suits a voice, and say why its words have none;
# - run an ablation at equal budget, and say honestly what it shows and what it does not;
# - let a model talk that you have trained yourself.
#
# * **Needs** only committed files: the `lite` weights as they were after each phase, 800 spoken questions, and the
# course's texts.
# * **Takes** TIME, most of it real training; 35 to 45 minutes to read.
#
# You should know the training loop, the guided attention (notebook 05), and the mixture of tasks (notebook 06).
# Instructors who begin here: sections 7.5 and 7.8 show the most to an audience.

# %%
import sys

if "google.colab" in sys.modules:                      # on your own machine: `make lab`
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, display

# %%
from omni_lite import checks, plots
from omni_lite.assistant import CHECKPOINTS, ROOT, Assistant, fill, load_model
from omni_lite.audio import save_wav
from omni_lite.codec import build_codec
from omni_lite.config import LITE
from omni_lite.data import FeatureStore, Item, gather, lay_out, load_tokenizer, read_rows, store_features
from omni_lite.evaluate import exact_answers, transcribe, wer
from omni_lite.generate import Sampling, sample
from omni_lite.guide import byte_lengths, expected_attention, head_attention
from omni_lite.hear import Ears
from omni_lite.recipe import small_corpus
from omni_lite.streams import Task, collate, example, undelay_streams
from omni_lite.train import LITE_PHASES, hear_all, omni_loss, train_phase
from omni_lite.vocab import CODEC_RATE, FRAME_SECONDS
from omni_lite.weights import load_whisper, read_card
from omni_lite.widgets import player

plots.use_style()
PHASES = {phase.name: phase for phase in LITE_PHASES}
CARD = {phase["name"]: phase for phase in read_card(CHECKPOINTS / "lite")["phases"]}    # what the committed weights had

# %% [markdown]
# ## 7.1 What is left to learn?
#
# After phase 2 the model hears and answers in text, and it has a voice that can read aloud. But it has never done
# both at once: hear a question, think of the answer, and speak it *while* the later words are still being thought
# (task A1A2). In phase 3 everything is free, and the mixture has all five tasks, so that nothing is lost again.
#
# Guess first: which of the five tasks gets the largest share, and why is it not A1A2?

# %%
fig, axes = plt.subplots(1, 2, figsize=(16, 4), width_ratios=(1.5, 1))
plots.model_parts(PHASES["phase3"].trains, axes[0], "phase 3: everything learns")
mixture = PHASES["phase3"].mixture
hues = [plots.PINK if kind.endswith("A2") else plots.GREEN if kind.startswith("A1") else plots.RED for kind in mixture]
axes[1].barh([str(kind) for kind in mixture], list(mixture.values()), color=hues)
axes[1].set(title="mixture: pink speaks, green only hears, red only text", xlabel="share of the items")
axes[1].invert_yaxis()
plt.show()

# %% tags=["nbval-check-output"]
for part in plots.PART_NAMES:
    print(f"{part:12s}", "learns" if part in PHASES["phase3"].trains else "frozen")

# %% [markdown]
# The bars count items, and items differ in length: a fact to read again costs some twenty steps, a spoken answer
# several times as many. So three items of ten are text alone, and the voice still has most of the work. Among the
# tasks that speak, the one that needs no ears is the larger: whether the question was heard or read makes no
# difference to the sound of an answer.
#
# ## 7.2 One loss for two mouths
#
# Material as in notebook 06: eight hundred questions, heard once by Whisper, and the course's texts.

# %%
CLIPS = 800                                            # questions to train on; fewer is quicker
FOLDER, SUBSET, VOCAB, STACK = CHECKPOINTS / "lite", ROOT / "data" / "subset", LITE.vocab, LITE.ear.stack
tokenizer, ears = load_tokenizer(FOLDER), Ears.from_pretrained(LITE.ear.whisper)
sizes = byte_lengths(tokenizer, VOCAB)                 # of every token, for the guided attention
scratch = tempfile.TemporaryDirectory()


def listen(rows, name, augmented=0.0):
    """Features of every row's question, in a file that is mapped, not read (as in notebook 05)."""
    path = Path(scratch.name) / name
    store_features(path, hear_all(ears, rows, augmented))
    return FeatureStore(path, LITE.ear.width)


train_rows = read_rows([SUBSET / "train.parquet"])[:CLIPS]
held_rows = read_rows([SUBSET / "dev_voices.parquet"])                      # people that no training hears
train_store, held_store = listen(train_rows, "train.f16", augmented=0.6), listen(held_rows, "held.f16")

# %%
def ids(text):
    return tuple(tokenizer.encode(text).ids)


text_rows = read_rows([SUBSET / "text.parquet"], sound=False)
corpus = small_corpus(tokenizer, train_rows, train_store, text_rows)


def batch_of(task, rows=held_rows, first=0):
    """Held-out questions laid out for a task; `first` is the number of the first one's clip."""
    items = [Item(task, ids(row.question), ids(row.question if task == Task.A1T1 else row.answer), first + i, row.codes)
             for i, row in enumerate(rows)]
    laid = [lay_out(item, VOCAB, -(-held_store.length(item.clip) // STACK)) for item in items]
    return gather(items, laid, VOCAB, held_store)

# %% [markdown]
# The loss is the plainest thing that one could write down: cross-entropy of the next text token, plus the mean
# cross-entropy of the next code over all seven streams. There is no term that says which word belongs to which sound.
# (In training the three levels count alike, so a coarse code four times as much as a fine one: the words are in the
# coarse ones, see notebook 02. To measure, all codes count alike.) Naive, and beside it the library, which computes
# heads only where a target stands:

# %%
def naive_loss(model, heard):
    """Both mouths at all steps; targets of -100 do not count in `cross_entropy`."""
    batch = heard.batch
    text_logits, audio_logits = model(batch.text_in, batch.audio_in, heard.features, heard.lengths)
    words = F.cross_entropy(text_logits.flatten(0, 1), batch.text_target.flatten())
    codes = F.cross_entropy(audio_logits.flatten(0, 2), batch.audio_target.flatten())
    return words + codes


start = load_model(FOLDER, "phase2")                   # the committed weights after text, 1a, 1b and 2
HELD_A1A2 = batch_of(Task.A1A2)
with torch.no_grad():
    torch.testing.assert_close(naive_loss(start, HELD_A1A2), omni_loss(start, HELD_A1A2)["loss"], rtol=1e-3, atol=1e-3)

# %% tags=["nbval-check-output"]
print("text targets", tuple(HELD_A1A2.batch.text_target.shape)[:1], "x steps; audio targets",
      tuple(HELD_A1A2.batch.audio_target.shape)[:2], "x steps")

# %% [markdown]
# ### Exercise 1 (10 min, difficulty 2/5): the loss, from logits
#
# Write `my_loss(text_logits, audio_logits, text_target, audio_target)`, shapes `(B, S, V)`, `(B, 7, S, A)`, `(B, S)`,
# `(B, 7, S)`, without `F.cross_entropy`: targets of -100 do not count, and the voice counts once, not seven times.
#
# <details><summary>Hint 1</summary>
#
# `logits.log_softmax(-1)` gives log probabilities. `target.clamp(min=0)` makes an index of every target; throw the
# ignored ones away afterwards.
# </details>
# <details><summary>Hint 2</summary>
#
# `logp.gather(-1, target.clamp(min=0)[..., None])[..., 0][target != -100]` are the log probabilities of what should
# have been said.
# </details>

# %%
my_loss = None  # replace me
checks.two_mouths_loss(my_loss)

# %% [markdown]
# ## 7.3 Train everything
#
# The library's own loop, `train.train_phase`: that of notebook 05, with all hints that the phase table asks for
# (`guide`, `copying` and `ctc`, explained in `guide.py`), and with two additions. Its parts have speeds of their own
# (`Phase.rates`): the embeddings of the words, at which the ears point, move at a hundredth of the rate (at a tenth,
# words and ears ran away from each other), the ears at a tenth, the trunk at half. And the voice reads its own past
# with some faults in it (`train.with_noise`), so that it learns to find its way back.

# %%
def train(model, phase, corpus, warmup=20, seed=0, lines=5):
    """`phase.steps` steps; returns the losses of each, and prints a few lines of means."""
    history, every = [], max(1, phase.steps // lines)

    def each(step, losses):
        history.append(losses)
        if phase.steps >= 100 and (step + 1) % every == 0:
            some = history[-every:]
            names = sorted({name for at in some for name in at})
            means = [f"{name} {np.mean([at[name] for at in some if name in at]):.2f}" for name in names]
            print(f"{phase.name}  step {step + 1}/{phase.steps}  {'  '.join(means)}")

    train_phase(model, phase, corpus, say=lambda line: None, warmup=warmup, each=each, seed=seed)
    return history

# %%
STEPS = 240                                            # about 0.28 s each
mine = deepcopy(start)
phase_3 = replace(PHASES["phase3"], steps=STEPS)
print(f"{STEPS} steps on {len(corpus.heard):,} questions; the committed weights had {CARD['phase3']['steps']:,} steps")
history = train(mine, phase_3, corpus)

# %%
def curve(name):
    """Steps and values of one of the losses: not every batch has a spoken answer, or a heard question."""
    found = [(step, at[name]) for step, at in enumerate(history) if name in at]
    return [step for step, _ in found], plots.running_mean([value for _, value in found], 10)


axes = plots.losses_and_parts([("phase 3", [at["loss"] for at in history], phase_3.trains)], "all together", plots.GREY)
for name, hue, label in (("audio", plots.BLUE, "codes"), ("text", plots.RED, "words"), ("guide", plots.ORANGE, "hint")):
    axes[0].plot(*curve(name), color=hue, label=label)
axes[0].legend(ncols=4)
plt.show()

# %% [markdown]
# The words (red) fall fast: the answers are known already, they have only to be written beside a running voice now.
# What is left after a few dozen steps is the voice (blue): it makes up most of the loss, and sinks slowly. The grey
# sum jumps because batches differ: some have spoken answers and some have not.
#
# Below, no grey bar is left. So, for the first time, nothing can be asserted to have stood still; let us look how far
# each part went.

# %%
def weights(model, part):
    """All weights of a part as one vector."""
    return torch.cat([p.detach().flatten() for p in getattr(model, part).parameters()])


changed = {part: float((weights(mine, part) - weights(start, part)).square().mean().sqrt())
           for part in plots.PART_NAMES}
fig, ax = plt.subplots(figsize=(10, 3.2))
plots.moved(changed, ax, "phase 3: which parts moved")
plt.show()
assert all(change > 0 for change in changed.values())

# %% [markdown]
# ## 7.4 What came of it?
#
# Row by row on held-out voices: the eight rows of task A1A2, before, after your training, and as committed. Guess
# first: which of the seven streams is the easiest to predict, the coarse one (0) or the fine ones (2, 3, 5, 6)?

# %%
@torch.no_grad()
def by_row(model, heard):
    """Loss of the text row and of each stream, nats."""
    batch = heard.batch
    text_logits, audio_logits = model(batch.text_in, batch.audio_in, heard.features, heard.lengths)
    rows = [F.cross_entropy(text_logits.flatten(0, 1), batch.text_target.flatten())]
    rows += [F.cross_entropy(audio_logits[:, q].flatten(0, 1), batch.audio_target[:, q].flatten()) for q in range(7)]
    return [float(row) for row in rows]


final = load_model(FOLDER)                             # as committed, after all of phase 3
models = {"before": start, "yours": mine, "committed": final}
rows = {name: by_row(model, HELD_A1A2) for name, model in models.items()}

fig, ax = plt.subplots(figsize=(11, 4))
for shift, (name, values), hue in zip((-0.27, 0, 0.27), rows.items(), (plots.GREY, plots.SKY, plots.BLUE), strict=True):
    ax.bar(np.arange(8) + shift, values, width=0.25, color=hue, label=name)
ax.set(xticks=range(8), xticklabels=["text", *[f"stream {q}" for q in range(7)]], ylabel="held-out loss, nats")
ax.legend()
plt.show()
assert np.mean(rows["yours"][1:]) < np.mean(rows["before"][1:])
assert np.mean(rows["committed"][1:]) < np.mean(rows["yours"][1:])

# %% [markdown]
# Look at the text row first. Before phase 3 it is bad, although this model knows how to answer (notebook 06): it has
# never written while a voice runs beside it, and the silence after the last word, one `pad_t` a step until the voice
# has finished, is new to it too. That much is learnt in no time.
#
# Then compare the streams with each other. Stream 0 is drawn first in each frame and must *decide*: which sound,
# which pitch. The streams after it are drawn knowing it, thanks to the delay, and have details left; but details are
# many. The words of an answer live mostly in stream 0.
#
# Now whole answers: exactly right in text, and understandable in sound? The judge of the second is Whisper, all of
# it, which this model has never been trained against.

# %%
codec = build_codec(LITE.codec)
fill(codec, FOLDER / "codec.safetensors")
judge = load_whisper("tiny.en", full=True)
assistants = {name: Assistant(ears, model, codec, tokenizer) for name, model in models.items()}


def speak(assistant, rows, **how):
    """Replies, and what Whisper hears in them; a silent reply is a quarter of a second of nothing."""
    replies = [assistant.answer(row.question_wav, limit=60, **how) for row in rows]
    waves = [torch.from_numpy(one.wav_24k) if len(one.wav_24k) else torch.zeros(CODEC_RATE // 4) for one in replies]
    return replies, transcribe(judge, waves, CODEC_RATE)


spoken = {name: speak(assistants[name], held_rows[:6]) for name in ("yours", "committed")}
for name, assistant in assistants.items():
    right = exact_answers(assistant, held_rows, Task.A1T2)["exact"]
    print(f"{name:10s} right in text {right:.0f} %")
    if name in spoken:
        thought, heard = [reply.text or "-" for reply in spoken[name][0]], spoken[name][1]
        print(f"{'':10s} spoken WER {wer(thought, heard):.0f} %, over {len(heard)} answers")
for name, (replies, heard) in spoken.items():
    print(f"\n{name}: thought   {replies[0].text}\n{'':{len(name)}s}  Whisper   {heard[0]}")

# %% [markdown]
# Spoken WER compares what Whisper hears with what the model *thought*, so it judges the voice alone. Near 100 % means
# that no word can be made out; it may be higher, because Whisper, fed with babble, writes long sentences of its own.
#
# Be patient with your own model: its voice had a minute. And be strict with the committed one: read its figures in
# the README, where they are measured on many clips.
#
# ## 7.5 When is each word thought, and when is it spoken?
#
# The committed model answers; then we look at its guided head (notebook 05) and ask, frame by frame, which word it is
# busy with. A red dot shows when a word was thought, a blue bar when it is spoken. Guess first: how far ahead is the
# thought at the first word, and at the last?

# %%
def longest(rows, assistant):
    """Of some answers the one that takes longest, step by step as it was said."""
    answers = [list(assistant.ask(row.question_wav, Task.A1A2, limit=60)) for row in rows]
    return max(zip(rows, answers, strict=True), key=lambda pair: len(pair[1]))


row, steps = longest(held_rows[:6], assistants["committed"])
tokens = [step.text_token for step in steps if step.text_token is not None]
said = torch.from_numpy(np.stack([step.tokens for step in steps])).T        # (7, S), still delayed
frames = undelay_streams(said)                                              # (7, S - 7)
features = ears.hear(row.question_wav)
laid = example(VOCAB, Task.A1A2, positions=final.asr_adapter.num_positions(features.shape[1]), answer_text=tokens,
               answer_codes=frames)
print(f"{row.question} -> {tokenizer.decode(tokens).strip()}   ({len(steps)} steps, {frames.shape[1]} frames)")

# %%
@torch.no_grad()
def guided_attention(model, batch, features):
    """Attention of the guided head at every frame to every word: (frames, tokens)."""
    hidden = model.run(model.embed(batch.text_in, batch.audio_in, features))
    block = model.tts_adapter.blocks[len(model.tts_adapter.blocks) // 2]
    into = []
    handle = block.register_forward_pre_hook(lambda _, args: into.append(args[0]))
    model.speak(hidden)
    handle.remove()
    attention = head_attention(block, into[0], model.tts_adapter.rotary).exp()[0]
    at_frames, _ = expected_attention(batch, VOCAB, sizes)
    says = (batch.text_target[0] >= 0) & (batch.text_target[0] < VOCAB.text_base)
    return attention[at_frames[0]][:, says]


looks = guided_attention(final, collate([laid], VOCAB), features)
busy_with = looks.argmax(1)                            # which word each frame is about
words = [tokenizer.decode([token]).strip() for token in tokens]

# %%
fig, axes = plt.subplots(1, 2, figsize=(16, 0.4 * len(words) + 2))
plots.token_map(looks.T, words, FRAME_SECONDS, axes[0], "attention of the guided head")
for n in range(len(words)):
    axes[1].plot(n * FRAME_SECONDS, n, "o", color=plots.RED, ms=9, label="thought" if n == 0 else None)
    spoken_at = (busy_with == n).nonzero().flatten() + 7                    # frame f is complete at step f + 7
    for f in spoken_at.tolist():
        axes[1].barh(n, FRAME_SECONDS, left=f * FRAME_SECONDS, color=plots.BLUE, height=0.6)
axes[1].barh(0, 0, color=plots.BLUE, label="spoken")
axes[1].set(yticks=range(len(words)), yticklabels=words, title="when", xlabel="steps x 85 ms since the answer began",
            xlim=(-0.1, len(steps) * FRAME_SECONDS))
axes[1].invert_yaxis()
axes[1].legend()
plt.show()
assert len(tokens) < len(steps)                        # it had thought to the end before it had spoken to the end

# %% [markdown]
# The red line is steep: one token a step. The blue staircase is flatter, because a word takes several frames to say.
# So the thought runs ahead, a little further with every word: at the first word by the delay of the streams alone, at
# the last by seconds. **This is what "talk while thinking" means**, and why text leads: by the time the voice has to
# sound a word, the words *after* it are known too, and intonation can prepare for them.
#
# Commas and full stops may get no bar: they are thought, but nobody needs to sound them.
#
# If the blue bars do not form a staircase, the head has lost its place, and you will hear it: words repeated, or
# swallowed. It is the most useful picture to look at when a voice of this kind fails.
#
# ## 7.6 Do the early phases help at all?
#
# The paper trains in three phases. SLAM-Omni (arXiv 2412.15649) reports the opposite: for its model, aligning first
# *hurt*, and one stage of everything was better. Both cannot be a law of nature. Let us run it, small and fair: the
# same text model at the start, the same number of steps, the same data and batches of the same size; once in phases,
# once all at once.
#
# Guess first, and write your guess down: which way is better after this budget at (a) the transcript, (b) the words
# of the answer, (c) its codes, (d) text that was known before?

# %%
BUDGET = 120                                           # steps of each way
SPLIT = {"phase1a": 0.25, "phase1b": 0.2, "phase2": 0.25, "phase3": 0.3}
text_model = load_model(FOLDER, "text")


def run(plan, seed=0, **changes):
    """Train from the text model through some phases: the model, what to draw, and the seconds it took."""
    model, segments, began = deepcopy(text_model), [], perf_counter()
    for name, steps in plan.items():
        phase = replace(PHASES[name], steps=steps, steps_per_batch=2048, **changes)
        losses = [at["loss"] for at in train(model, phase, corpus, warmup=max(2, steps // 6), seed=seed)]
        segments.append((name, losses, phase.trains))
    return model, segments, perf_counter() - began


in_phases = run({name: round(share * BUDGET) for name, share in SPLIT.items()})
at_once = run({"phase3": BUDGET}, rates={})           # its words are new to the ears: at full speed, too
print(f"in phases {in_phases[2]:.0f} s, all at once {at_once[2]:.0f} s")
assert sum(len(losses) for _, losses, _ in in_phases[1]) == BUDGET

# %%
for name, (_, segments, _) in (("in phases: each phase's own loss", in_phases), ("all at once", at_once)):
    axes = plots.losses_and_parts(segments, name)
    axes[0].set(yscale="log")
    plt.show()

# %% [markdown]
# The two curves must *not* be compared with each other: each phase has a loss of its own. Nor are the seconds equal:
# a step of phase 1 computes less, since less is free. That is why the comparison is made on held-out questions, with
# the same measures for both.

# %%
MEASURES = {"transcript": (Task.A1T1, "text"), "words of the answer": (Task.A1A2, "text"),
            "codes of the answer": (Task.A1A2, "audio"), "written questions": (Task.T1T2, "text")}


@torch.no_grad()
def by_clip(model, task, mouth):
    """The loss of every held-out question by itself: (n,)"""
    return torch.tensor([float(omni_loss(model, batch_of(task, [row], i))[mouth]) for i, row in enumerate(held_rows)])


found = {name: (by_clip(in_phases[0], *how), by_clip(at_once[0], *how)) for name, how in MEASURES.items()}
fig, ax = plt.subplots(figsize=(11, 4))
for n, (a, b) in enumerate(found.values()):
    error = float((a - b).std()) / len(a) ** 0.5       # of the mean difference, clip by clip
    ax.barh(n - 0.2, float(a.mean()), 0.38, color=plots.BLUE, label="in phases" if n == 0 else None)
    ax.barh(n + 0.2, float(b.mean()), 0.38, color=plots.ORANGE, xerr=2 * error, capsize=4,
            label="all at once" if n == 0 else None)
ax.set(yticks=range(len(found)), yticklabels=list(found), xlabel="held-out loss, nats (lower is better)")
ax.invert_yaxis()
ax.legend()
plt.show()

# %%
for name, (a, b) in found.items():
    difference, error = float((b - a).mean()), float((b - a).std() / len(a) ** 0.5)
    verdict = "no clear difference" if abs(difference) < 2 * error else "in phases" if difference > 0 else "all at once"
    print(f"{name:20s} in phases {a.mean():5.2f}   all at once {b.mean():5.2f}   difference {difference:+.2f} "
          f"(+- {2 * error:.2f})   better: {verdict}")

# %% [markdown]
# The line printed last in each row is *this run's* verdict, with what two standard errors over twenty clips allow one
# to say. Before you believe it, list what it does **not** show:
#
# - **One seed.** The error bar knows that clips differ; it does not know that runs differ. `run(plan, seed=1)` may
#   say something else.
# - **A tiny budget.** The two ways may cross later. A frozen phase is a head start, and a head start counts most in a
#   short race.
# - **One split.** 25, 20, 25 and 30 % were chosen by us. A better split, or other learning rates for the one-stage
#   run, would change the race.
# - **Equal steps, unequal practice.** "All at once" trains on answers aloud from its first step; "in phases" for
#   about half of its steps.
# - **Another start.** SLAM-Omni begins with a large language model whose text ability is robust, groups its audio
#   tokens, and needs no delay. What it found is true of what it tried.
#
# What remains is a habit: claims about recipes are claims about recipes *at a budget*.

# %% [markdown]
# ### Exercise 2 (20 min, difficulty 3/5): the paired bootstrap
#
# The standard error assumes that differences spread like a bell. The **bootstrap** assumes nothing: draw as many
# clips as there are, with replacement, take the means of both models on *these* clips, and note which is lower; many
# times. Write `my_bootstrap(a, b, draws, generator)`: the share of draws in which the mean of `a` is below the mean
# of `b`.
#
# <details><summary>Hint 1</summary>
#
# `torch.randint(0, n, (draws, n), generator=generator)` draws clips for all rounds at once.
# </details>
# <details><summary>Hint 2</summary>
#
# Both models must be looked at on the *same* drawn clips: index `a` and `b` with the same numbers.
# </details>

# %%
my_bootstrap = None  # replace me
checks.paired_bootstrap(my_bootstrap)
if my_bootstrap is not None:
    for name, (a, b) in found.items():
        share = my_bootstrap(a, b, 2000, torch.Generator().manual_seed(0))
        print(f"{name:20s} in phases is better in {100 * share:.0f} % of the draws")

# %% [markdown]
# ## 7.7 Does a voice need dice?
#
# Text is taken by `argmax`: there is one best next token. For sound many next codes are about as good (notebook 04),
# and a voice that always takes the likeliest may get stuck in one sound, or in silence, because each likeliest code
# makes the next one likelier still. So codes are usually *drawn*. The **temperature** divides the logits first: below
# 1 the likely codes get likelier, above 1 all become more alike. `top_k` forbids all but the k likeliest.
#
# Naive, in four lines, and the library's `sample`: drawn from the same distribution?

# %%
def naive_sample(logits, temperature, top_k, generator):
    """One id from one row of logits."""
    if temperature == 0:
        return int(logits.argmax())
    best = (logits / temperature).topk(top_k or len(logits))
    return int(best.indices[torch.multinomial(best.values.softmax(0), 1, generator=generator)])


dice, logits = torch.Generator().manual_seed(0), torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
fig, axes = plt.subplots(1, 3, figsize=(15, 3.4), sharey=True)
for ax, temperature in zip(axes, (0.5, 1.0, 2.0), strict=True):
    ours = np.bincount([naive_sample(logits, temperature, 4, dice) for _ in range(4000)], minlength=5) / 4000
    library = sample(logits.expand(4000, 5), temperature, 4, generator=dice)
    theirs = np.bincount(library.numpy(), minlength=5) / 4000
    ax.bar(np.arange(5) - 0.2, ours, 0.38, color=plots.SKY, label="naive")
    ax.bar(np.arange(5) + 0.2, theirs, 0.38, color=plots.BLUE, label="library")
    ax.set(title=f"temperature {temperature}, top 4", xlabel="id")
    assert np.abs(ours - theirs).max() < 0.05 and ours[4] == theirs[4] == 0
axes[0].legend()
plt.show()

# %% [markdown]
# ### Exercise 3 (10 min, difficulty 2/5): draw a code
#
# Write `my_draw(logits, temperature, top_k, generator)` without `topk`: set the logits below the k-th largest to
# minus infinity. `top_k = 0` allows all; temperature 0 takes the likeliest.
#
# <details><summary>Hint</summary>
#
# `logits.sort(descending=True).values[top_k - 1]` is the k-th largest. `torch.multinomial(p, 1, generator=generator)`
# draws.
# </details>

# %%
my_draw = None  # replace me
checks.draw_code(my_draw)

# %% [markdown]
# Does *this* voice need dice? Guess first, then measure: the committed model answers eight questions at four
# temperatures, and Whisper writes down what it understands.

# %%
def spoken_wer(temperature, seed=0):
    """Of eight answers, what Whisper hears against what was thought, in percent."""
    how = Sampling(audio_temperature=temperature, top_k=30)
    replies, heard = speak(assistants["committed"], held_rows[:8], sampling=how, seed=seed)
    return wer([reply.text or "-" for reply in replies], heard)


temperatures = (0.0, 0.2, 0.5, 1.0)
found_wer = [spoken_wer(temperature) for temperature in temperatures]
fig, ax = plt.subplots(figsize=(8, 3.4))
ax.plot(temperatures, found_wer, "o-")
ax.set(ylim=(0, None), xticks=temperatures, xlabel="temperature of the voice", ylabel="spoken WER, %")
plt.show()
best = temperatures[int(np.argmin(found_wer))]
print("best of these, on eight answers:", best)

# %% [markdown]
# Few answers and one seed, so read only large differences. A voice that knows well where it is in its text has little
# to gain from chance: where the curve climbs from its left end, dice only cost words, and what they may bring (a
# livelier melody, no hanging) a word error rate cannot see. Look, and listen, at both ends:

# %%
def say_at(temperature, seed=0):
    """Ask the committed model, show the sound, print what it thought and what Whisper hears."""
    how = Sampling(audio_temperature=temperature, top_k=30)
    reply = assistants["committed"].answer(row.question_wav, sampling=how, seed=seed, limit=60)
    wave = reply.wav_24k if len(reply.wav_24k) else np.zeros(CODEC_RATE // 4, np.float32)
    fig, ax = plt.subplots(figsize=(8, 1.9))
    plots.spectrogram(wave, CODEC_RATE, ax)
    ax.set(title=f"temperature {temperature}")
    plt.show()
    print(f"thought: {reply.text}   Whisper hears: {transcribe(judge, [torch.from_numpy(wave)], CODEC_RATE)[0]}")


for temperature in (0.0, 1.3):
    say_at(temperature)

# %%
slider = ipywidgets.FloatSlider(0.2, min=0.0, max=1.5, step=0.1, continuous_update=False)
ipywidgets.interactive(say_at, temperature=slider, seed=ipywidgets.IntSlider(0, 0, 9, continuous_update=False))

# %% [markdown]
# Compare the two spectrograms. Where one frame looks like the next over a long stretch, the voice hangs; where vowels
# lose their bands, it has become hoarse. The default of the library is not sacred: try the seeds as well, since two
# draws at one temperature may differ more than two temperatures.
#
# ## 7.8 Your own model talks
#
# It hears a voice that it has never met, with weights that you have trained. First yours, then the committed one,
# then the truth.

# %%
asked = next((i for i, one in enumerate(held_rows) if one.skill in ("small talk", "likes")), 0)
question = held_rows[asked]
mine_says = assistants["yours"].answer(question.question_wav, limit=60)
theirs_says = assistants["committed"].answer(question.question_wav, limit=60)
sounds = {"yours": mine_says.wav_24k, "committed": theirs_says.wav_24k}
sounds = {name: wave if len(wave) else np.zeros(CODEC_RATE // 4, np.float32) for name, wave in sounds.items()}
heard = transcribe(judge, [torch.from_numpy(wave) for wave in sounds.values()], CODEC_RATE)
save_wav("answer.wav", sounds["yours"], CODEC_RATE)    # beside this notebook

print(f"asked            {question.question}\nright answer     {question.answer}")
for name, reply, words_heard in zip(sounds, (mine_says, theirs_says), heard, strict=True):
    print(f"\n{name:10s} thought {reply.text}\n{'':10s} sounds  {words_heard}   (Whisper's transcript)")
    if reply.rtf:
        print(f"{'':10s} made in {reply.rtf:.2f} of the time that it takes to play")

# %%
fig, axes = plt.subplots(2, 1, figsize=(8, 3.6))
for ax, (name, wave) in zip(axes, sounds.items(), strict=True):
    plots.spectrogram(wave, CODEC_RATE, ax)
    ax.set(title=name, xlabel="")
plt.show()
for name, wave in sounds.items():
    display(HTML(f"<p>{name}<br>{player(wave, CODEC_RATE)}</p>"))

# %% [markdown]
# Listen to both. Yours had a minute of phase 3 on eight hundred questions; it stands on text pretraining, ears and a
# first voice from the committed phases. Whatever it says, it says it in time: where the last line says less than 1,
# each sound was ready before it was due. The committed one had the same code and the same loop, and far more of both
# time and questions.
#
# If Whisper's line has nothing to do with the thought, that is the honest state of a voice at this budget: the words
# are there (read *thought*), the sound is not yet. Section 7.4 told you which of the eight rows is to blame.
#
# ## What to try next
#
# - Double `STEPS`, or take them from a machine with more cores. When does the first word become intelligible?
# - Repeat 7.6 with `seed=1` and `seed=2`, and with `BUDGET = 400`. Do the verdicts hold? Whatever you find, write
#   down the budget with it.
# - `guide=0.0` in `phase_3`: what does the picture of 7.5 look like, and what does one hear?
# - Record yourself (notebook 11), or `load_question("my.wav")` of `omni_lite.audio`, and ask *your* model.
# - On to **08**: the first sound after how many milliseconds, and who is to blame for each.
