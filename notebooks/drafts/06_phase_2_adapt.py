# %% [markdown]
# # 06 · Phase 2: adapt
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/06_phase_2_adapt.ipynb)
#
# At the end you will be able to
#
# - let a language model learn from sound, with the ears and the voice held still;
# - say what a mixture of tasks really teaches, in targets and not in items;
# - measure what a model forgets while it learns something else, question by question;
# - show with an experiment of your own what happens when text is left out of the mixture.
#
# * **Needs** only committed files: the `lite` weights as they were after each phase, 800 spoken questions, and the
# course's texts.
# * **Takes** TIME, most of it real training; 25 to 35 minutes to read.
#
# You should have met the training loop and the frozen parts (notebook 05).

# %%
import sys

if "google.colab" in sys.modules:                      # on your own machine: `make lab`
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import random
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch

# %%
from omni_lite import checks, plots
from omni_lite.assistant import CHECKPOINTS, ROOT, load_model
from omni_lite.config import LITE
from omni_lite.data import FeatureStore, Item, gather, lay_out, load_tokenizer, read_rows, store_features
from omni_lite.evaluate import wer
from omni_lite.generate import generate
from omni_lite.hear import Ears
from omni_lite.recipe import small_corpus
from omni_lite.streams import Task
from omni_lite.train import LITE_PHASES, hear_all, omni_loss, train_phase
from omni_lite.weights import read_card

plots.use_style()
PHASES = {phase.name: phase for phase in LITE_PHASES}
CARD = {phase["name"]: phase for phase in read_card(CHECKPOINTS / "lite")["phases"]}    # what the committed weights had

# %% [markdown]
# ## 6.1 Who moves now?
#
# After phase 1 the ears speak the language model's language, more or less, and the language model has not moved at
# all. That is polite, and it is a limit: it expects clean words at clear places, and gets what one layer of adapter
# can make of a noisy room. In phase 2 the roles are exchanged. The adapters stand still, and the language model
# learns to listen *to them*: to transcribe (A1T1), and to answer in text what it hears (A1T2).
#
# What it knows, it knows from text. So here is the danger of this phase, and its promise. The danger: new gradients
# overwrite old knowledge. The promise: a fact that was only ever *read* can be given as an answer to a question that
# is *heard*, if the model learns to treat both alike. Guess first: how much of the text ability will be gone after a
# minute of learning from sound alone?

# %%
fig, axes = plt.subplots(1, 3, figsize=(17, 3.6))
for ax, name in zip(axes, ("phase1a", "phase1b", "phase2"), strict=True):
    plots.model_parts(PHASES[name].trains, ax, name)
plt.show()

# %% tags=["nbval-check-output"]
for part in ("text_embed", "trunk", "audio_embed", "asr_adapter", "tts_adapter"):
    print(f"{part:12s}", "learns" if part in PHASES["phase2"].trains else "frozen")

# %% [markdown]
# ## 6.2 What is in the mixture?
#
# `PHASES["phase2"].mixture` says what share of the *items* is of each kind. Beside the two hearing tasks there is
# text: questions as they were in pretraining (`T1T2`), the same at the pace of speech (`slow T1T2`, words far apart),
# and reading back (`copy`).
#
# But a model learns from *targets*, the tokens that carry loss. A transcript and an answer differ in length, so
# shares of items and shares of targets differ. We lay out a few hundred items of each kind and count.

# %%
CLIPS = 800                                            # questions to train on; fewer is quicker
FOLDER, SUBSET, VOCAB, STACK = CHECKPOINTS / "lite", ROOT / "data" / "subset", LITE.vocab, LITE.ear.stack
tokenizer, ears = load_tokenizer(FOLDER), Ears.from_pretrained(LITE.ear.whisper)
scratch = tempfile.TemporaryDirectory()


def listen(rows, name, augmented=0.0):
    """Features of every row's question, in a file that is mapped, not read (as in notebook 05)."""
    path = Path(scratch.name) / name
    store_features(path, hear_all(ears, rows, augmented))
    return FeatureStore(path, LITE.ear.width)


train_rows = read_rows([SUBSET / "train.parquet"])[:CLIPS]
voice_rows = read_rows([SUBSET / "dev_voices.parquet"])                     # people that no training hears
fact_rows = read_rows([SUBSET / "dev_facts.parquet"])                       # facts that no training has as sound
train_store = listen(train_rows, "train.f16", augmented=0.6)
voice_store, fact_store = listen(voice_rows, "voices.f16"), listen(fact_rows, "facts.f16")

# %%
def ids(text):
    return tuple(tokenizer.encode(text).ids)


def decode(tokens):
    return tokenizer.decode(list(tokens)).removeprefix(" ")


text_rows = read_rows([SUBSET / "text.parquet"], sound=False)
corpus = small_corpus(tokenizer, train_rows, train_store, text_rows)
print(f"{len(corpus.heard)} questions to hear, {len(corpus.written)} written ones, {len(corpus.copied)} to read back")

# %%
def mean_targets(kind, count=200):
    """How many targets an item of this kind has, on average."""
    draw = corpus.draw({kind: 1.0})
    items = [next(draw) for _ in range(count)]
    places = [-(-train_store.length(item.clip) // STACK) if item.hears else 0 for item in items]
    laid = [lay_out(item, VOCAB, place) for item, place in zip(items, places, strict=True)]
    return float(np.mean([int((one.text_target >= 0).sum()) for one in laid]))


def shares_of_targets(mixture, targets):
    """What share of all targets comes from each kind."""
    total = sum(mixture[kind] * targets[kind] for kind in mixture)
    return {kind: mixture[kind] * targets[kind] / total for kind in mixture}


random.seed(0)
MIXTURE = PHASES["phase2"].mixture
targets = {str(kind): mean_targets(kind) for kind in MIXTURE}
print("targets an item:", {kind: round(count, 1) for kind, count in targets.items()})

# %%
HUES = dict(zip(MIXTURE, (plots.GREEN, plots.SKY, plots.RED, plots.ORANGE, plots.PINK, plots.BLUE), strict=False))


def show_shares(text_share):
    """The mixture with another share of text, in items and in targets."""
    sound = sum(share for kind, share in MIXTURE.items() if kind.startswith("A1"))
    scaled = {kind: share * ((1 - text_share) / sound if kind.startswith("A1") else text_share / (1 - sound))
              for kind, share in MIXTURE.items()}
    fig, ax = plt.subplots(figsize=(10, 2.6))
    for row, shares in enumerate((scaled, shares_of_targets(scaled, targets))):
        left = 0.0
        for kind, share in shares.items():
            ax.barh(row, share, left=left, color=HUES[kind], edgecolor="white", label=kind if row == 0 else None)
            left += share
    ax.set(yticks=(0, 1), yticklabels=("items", "targets"), xlabel="share", xlim=(0, 1))
    ax.invert_yaxis()
    ax.legend(ncols=6, loc="lower center", bbox_to_anchor=(0.45, 1.0), fontsize=11)
    plt.show()


TEXT_SHARE = sum(share for kind, share in MIXTURE.items() if not kind.startswith("A1"))
print(f"text is {100 * TEXT_SHARE:.0f} % of the items of this mixture")
show_shares(TEXT_SHARE)
assert abs(sum(shares_of_targets(MIXTURE, targets).values()) - 1) < 1e-9

# %% [markdown]
# Green and light blue are sound, the warm colours text. Move the slider to see other mixtures; the paper's phase 2
# has about as much text as sound.

# %%
slider = ipywidgets.FloatSlider(0.5, min=0.0, max=1.0, step=0.05, continuous_update=False)
ipywidgets.interactive(show_shares, text_share=slider)

# %% [markdown]
# ### Exercise 1 (10 min, difficulty 2/5): what is learnt from what?
#
# Write `my_shares(mixture, targets)`: from the shares of the items and the mean number of targets of each kind, the
# share of all targets that each kind gives. The shares of the mixture need not add up to 1.
#
# <details><summary>Hint</summary>
#
# An item of a kind is drawn in proportion to its share, and brings its number of targets along. Multiply, then divide
# by the sum.
# </details>

# %%
my_shares = None  # replace me
checks.learning_shares(my_shares)

# %% [markdown]
# ## 6.3 What can it do before?
#
# Three abilities, each on questions that training never uses:
#
# - **writes down** what unknown voices say (A1T1, word error rate);
# - **answers** heard questions in text (A1T2, exactly the right sentence): known facts in unknown voices, and facts
#   that were only ever *read*;
# - **answers written** questions (T1T2): the text ability, which must not suffer.

# %%
def reply(model, task, row, store=None, clip=0):
    """What the model writes."""
    question = dict(features=store[clip][None]) if task.hears else dict(text=ids(row.question))
    steps = generate(model, None, task=task, decode_text=decode, limit=30, **question)
    return "".join(step.text for step in steps)


asked_rows = [row for row in text_rows if row.fact and row.skill != "repeat"]
asked_rows = random.Random(0).sample(asked_rows, 30)                        # written questions about facts of all kinds


def right(model, task, rows, store=None):
    """Which questions get exactly the right answer."""
    return [reply(model, task, row, store, clip) == row.answer for clip, row in enumerate(rows)]


def marks(model):
    """What the model can do: a WER in percent, and lists of right and wrong."""
    written_down = [reply(model, Task.A1T1, row, voice_store, i) for i, row in enumerate(voice_rows)]
    return {"WER": wer([row.question for row in voice_rows], written_down),
            "new voices": right(model, Task.A1T2, voice_rows, voice_store),
            "only read": right(model, Task.A1T2, fact_rows, fact_store),
            "written": right(model, Task.T1T2, asked_rows)}

# %%
def line(name, mark):
    """One row of the table."""
    shares = [f"{kind} {100 * np.mean(mark[kind]):.0f} %" for kind in ("new voices", "only read", "written")]
    return f"{name:15s} WER {mark['WER']:5.1f} %   right answers: {'   '.join(shares)}"


start = load_model(FOLDER, "phase1b")                  # text pretraining, ears, voice
results = {"before phase 2": marks(start)}
print(line("before phase 2", results["before phase 2"]))

# %% [markdown]
# Written questions are its home. Through the ears it makes what it can of a model that has never listened.
#
# ## 6.4 Train, and watch what is kept
#
# The loop is that of notebook 05, now the library's own (`train_phase`), with one addition: every few steps we look at
# three held-out batches, one for each ability. A training loss alone cannot show forgetting, because it is measured on
# what is being trained.

# %%
def batch_of(rows, task, store=None):
    """One batch of all these rows, laid out for a task."""
    items = [Item(task, ids(row.question), ids(row.question if task == Task.A1T1 else row.answer), clip)
             for clip, row in enumerate(rows)]
    laid = [lay_out(item, VOCAB, -(-store.length(item.clip) // STACK) if store else 0) for item in items]
    return gather(items, laid, VOCAB, store)


HELD = {"writes down": batch_of(voice_rows, Task.A1T1, voice_store),
        "answers what it hears": batch_of(voice_rows, Task.A1T2, voice_store),
        "answers what it reads": batch_of(asked_rows, Task.T1T2)}


@torch.no_grad()
def held_losses(model):
    """Nats a token on the three held-out batches."""
    model.eval()
    return {name: float(omni_loss(model, heard)["text"]) for name, heard in HELD.items()}

# %%
def train(model, phase, corpus, looks=6):
    """`phase.steps` steps; returns the loss of every step, and the held-out losses every now and then."""
    history, seen = [], {0: held_losses(model)}

    def each(step, losses):
        history.append(losses["loss"])
        if (step + 1) % max(1, phase.steps // looks) == 0:
            seen[step + 1] = held_losses(model)
            model.train()
            found = "  ".join(f"{name} {value:.2f}" for name, value in seen[step + 1].items())
            print(f"step {step + 1}/{phase.steps}  loss {history[-1]:.2f}  held out: {found}")

    train_phase(model, phase, corpus, say=lambda line: None, warmup=20, each=each)
    return history, seen

# %%
STEPS = 200                                            # about 0.25 s each
phase_2 = replace(PHASES["phase2"], steps=STEPS)
print(f"{STEPS} steps on {len(corpus.heard):,} questions; the committed weights had {CARD['phase2']['steps']:,} steps")
mine = deepcopy(start)
history, seen = train(mine, phase_2, corpus)
results["yours"] = marks(mine)

# %%
def draw_seen(ax, seen, style, label):
    """Held-out losses over the steps, one colour an ability."""
    for name, hue in zip(HELD, (plots.GREEN, plots.SKY, plots.RED), strict=True):
        ax.plot(list(seen), [at[name] for at in seen.values()], style, color=hue, label=f"{name}{label}")


axes = plots.losses_and_parts([("phase 2", history, phase_2.trains)], "training loss", plots.GREY)
draw_seen(axes[0], seen, "o-", ", held out")
axes[0].set(yscale="log")
axes[0].legend(fontsize=11)
plt.show()

# %% [markdown]
# Green and blue: the model learns to listen, on voices that it is not trained on. Red is the one to watch: written
# questions, which it answered before. The axis is logarithmic, so that a small loss that doubles can be seen to
# double.
#
# The coloured bars below are complementary to phase 1: what was frozen moves, what moved is frozen. Bit by bit:

# %%
def weights(model, part):
    """All weights of a part as one vector."""
    return torch.cat([p.detach().flatten() for p in getattr(model, part).parameters()])


def changes(before, after):
    """Root mean square change of a weight, part by part."""
    return {part: float((weights(after, part) - weights(before, part)).square().mean().sqrt())
            for part in plots.PART_NAMES}


fig, ax = plt.subplots(figsize=(10, 3.4))
plots.moved(changes(start, mine), ax, "phase 2: which parts moved")
plt.show()
for part, change in changes(start, mine).items():
    assert (change > 0) == (part in phase_2.trains), part

# %% tags=["nbval-check-output"]
print("moved:", [part for part, change in changes(start, mine).items() if change > 0])

# %% [markdown]
# ### Exercise 2 (10 min, difficulty 3/5): the schedule
#
# Every phase climbs to its peak rate and falls along half a cosine. Write `my_rate(step, steps, peak, end, warmup)`:
# before `warmup` the line `peak * (step + 1) / warmup`; after it half a cosine from `peak` down to `end` at `step ==
# steps`.
#
# <details><summary>Hint</summary>
#
# `done = (step - warmup) / (steps - warmup)` runs from 0 to 1. `(1 + cos(pi * done)) / 2` runs from 1 to 0. Put it
# between `end` and `peak`.
# </details>

# %%
my_rate = None  # replace me
checks.learning_rate(my_rate)

# %% [markdown]
# ## 6.5 And without text?
#
# The same model, the same steps, the same rate; but the mixture has only what is heard. Guess first: will it be a
# better listener for it, since it hears more? And what will the red line do?

# %%
only_sound = replace(phase_2, mixture={kind: share for kind, share in MIXTURE.items() if kind.startswith("A1")})
deaf_to_text = deepcopy(start)
_, seen_without = train(deaf_to_text, only_sound, corpus)
results["without text"] = marks(deaf_to_text)

# %%
fig, axes = plt.subplots(1, 3, figsize=(15, 4))
for ax, name, hue in zip(axes, HELD, (plots.GREEN, plots.SKY, plots.RED), strict=True):
    ax.plot(list(seen), [at[name] for at in seen.values()], "o-", color=hue, label="with text")
    ax.plot(list(seen_without), [at[name] for at in seen_without.values()], "s--", color=hue, label="without")
    highest = max(at[name] for some in (seen, seen_without) for at in some.values())
    ax.set(title=name, xlabel="step", ylabel="held-out loss", ylim=(0, 1.1 * highest))
    ax.legend()
plt.show()

last, last_without = seen[max(seen)], seen_without[max(seen_without)]
for name in HELD:
    print(f"{name:22s} with text {last[name]:.3f}   without {last_without[name]:.3f}")
assert last_without["answers what it reads"] > max(last["answers what it reads"], seen[0]["answers what it reads"])

# %% [markdown]
# The right panel is the finding: without text in the mixture, what was known from text begins to slip away, although
# nobody asked the model to forget and although the same facts are being *heard*. Networks do not store facts in a
# place of their own; the weights that held them are the weights that now learn something else. This is **catastrophic
# forgetting**, and the cheapest known remedy is the one used here, **rehearsal**: keep showing some of the old.
#
# Compare the two left panels for the price. Text takes up part of every batch; does listening suffer from it, at this
# budget, on your machine? The paper's authors chose about half and half.

# %%
before, with_text, without = (np.array(results[name]["written"])
                              for name in ("before phase 2", "yours", "without text"))
for name, after in (("with text", with_text), ("without text", without)):
    kept, lost, won = (before & after).sum(), (before & ~after).sum(), (~before & after).sum()
    print(f"{name:13s} of {len(before)} written questions: kept {kept}, lost {lost}, won {won}")
for row, ok, was in zip(asked_rows, without, before, strict=True):
    if was and not ok:
        print(f"\nlost without text: {row.question}\n  was  {row.answer}\n  now  {reply(deaf_to_text, Task.T1T2, row)}")
        break

# %% [markdown]
# Why count kept, lost and won, and not just subtract two percentages? Because a model that loses ten questions and
# wins ten others shows the same percentage, and is not the same model.
#
# ### Exercise 3 (5 min, difficulty 1/5): kept, lost, won
#
# Write `my_counts(before, after)` for two lists of `True` and `False`, one entry a question: how many were right both
# times, only before, only after.
#
# <details><summary>Hint</summary>
#
# `zip(before, after, strict=True)` goes through both at once.
# </details>

# %%
my_counts = None  # replace me
checks.kept_lost_won(my_counts)

# %% [markdown]
# ## 6.6 How far is the committed model?
#
# It had many times your steps, and many times your clips.

# %%
results["committed"] = marks(load_model(FOLDER, "phase2"))
for name, mark in results.items():
    print(line(name, mark))

fig, axes = plt.subplots(1, 4, figsize=(16, 3.4), sharey=True)
for ax, kind in zip(axes, ("WER", "new voices", "only read", "written"), strict=True):
    values = [mark[kind] if kind == "WER" else 100 * np.mean(mark[kind]) for mark in results.values()]
    ax.barh(list(results), values, color=(plots.GREY, plots.SKY, plots.ORANGE, plots.BLUE))
    ax.set(title={"WER": "transcript, WER %"}.get(kind, f"{kind}, right %"), xlim=(0, max(100, *values)))
axes[0].invert_yaxis()
plt.show()
assert results["committed"]["WER"] < results["before phase 2"]["WER"]

# %% [markdown]
# With twenty or forty questions a bar, a difference of two or three questions means nothing (notebook 09 shows how to
# tell). Read the large ones.
#
# The third panel is the promise of the beginning: these facts were in the *texts* of pretraining, but no training
# ever spoke them. Where the committed model answers them, the question came in through the ear and the knowledge came
# from reading. That only works because both ways lead into the same trunk, and because the transcript task taught it
# that a heard word and a read word are one word.

# %%
for clip in range(4):
    row = fact_rows[clip]
    print(f"heard  {row.question}\n  before     {reply(start, Task.A1T2, row, fact_store, clip)}"
          f"\n  yours      {reply(mine, Task.A1T2, row, fact_store, clip)}\n  wanted     {row.answer}\n")

# %% [markdown]
# A typical mistake is worth looking for in this list: the right *kind* of answer about the wrong thing. The model
# understood what was asked for, and misheard about what. It answers as surely as ever.
#
# ## What to try next
#
# - Where is the edge? Run 6.5 with a text share of 5 % (`slow T1T2` only, or `T1T2` only). Which kind of text
#   protects better?
# - Let the ASR adapter learn too: `replace(phase_2, trains=(*phase_2.trains, "asr_adapter"))`. Better, or is there a
#   reason why the paper freezes it here?
# - Halve the peak rate: forgetting depends on how far the weights travel (`changes`). Does it learn as much?
# - On to **07**: everything moves at once, and the model begins to talk.
