# %% [markdown]
# # 05 · Phase 1: align
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/05_phase_1_align.ipynb)
#
# At the end you will be able to
#
# - train one part of a model while the rest holds still, and prove that it held still;
# - give a language model that has only ever read text a first pair of ears (phase 1a) and a first voice (phase 1b);
# - point from a word of a transcript back to the moment in the sound it was heard in, in two independent ways;
# - give training two hints that the paper does not have, and see that they work: which word is heard now (CTC), and
#   which word is being spoken now (guided attention).
#
# * **Needs** only committed files: the `lite` weights as they were after each phase, and 800 questions. No other
# notebook.
# * **Takes** TIME, most of it real training; 35 to 45 minutes to read.
#
# You should know the model's parts (notebook 04) and the five tasks (notebook 03).

# %%
import sys

if "google.colab" in sys.modules:                      # on your own machine: `make lab`
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import itertools
import math
import random
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, display
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# %%
from omni_lite import checks, plots
from omni_lite.assistant import CHECKPOINTS, ROOT, SAMPLING, fill, load_model
from omni_lite.codec import build_codec
from omni_lite.config import LITE
from omni_lite.data import FeatureStore, Item, batches, gather, lay_out, load_tokenizer, read_rows, store_features
from omni_lite.evaluate import transcribe, wer
from omni_lite.generate import SlowDecoder, generate
from omni_lite.guide import TOLERANCE, byte_lengths, ctc_loss, expected_attention, head_attention
from omni_lite.hear import Ears
from omni_lite.model import WORD_SPREAD, OmniModel
from omni_lite.recipe import small_corpus
from omni_lite.streams import Task, example
from omni_lite.train import LITE_PHASES, cosine, freeze, hear_all, hold_silence, inner_matrices, omni_loss, train_phase
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FRAME_SECONDS
from omni_lite.weights import load_whisper, read_card
from omni_lite.widgets import player

plots.use_style()
PHASES = {phase.name: phase for phase in LITE_PHASES}
CARD = {phase["name"]: phase for phase in read_card(CHECKPOINTS / "lite")["phases"]}    # what the committed weights had

# %% [markdown]
# ## 5.1 Who learns, and who holds still?
#
# We begin with a language model that has read, and nothing else: it knows the course's facts and small talk as
# *text*. Whisper's encoder, on the other side, has heard years of speech, but its features mean nothing to the
# language model. Phase 1 brings them together, in two halves that do not need each other:
#
# - **1a, ears**: only the ASR adapter is trained, until the frozen language model can write down what was said (task
#   A1T1);
# - **1b, voice**: only the audio embeddings and the TTS adapter are trained, to read an answer aloud (task T1A2).
#
# Why not train everything at once? A model that knows something can be ruined by the gradients of a newcomer that
# knows nothing yet. As long as the newcomer is bad, the old part stays fixed. Guess first: what share of all weights
# moves in 1a?

# %%
fig, axes = plt.subplots(1, 2, figsize=(15, 4.2))
for ax, name in zip(axes, ("phase1a", "phase1b"), strict=True):
    plots.model_parts(PHASES[name].trains, ax, f"{name}: learns {', '.join(PHASES[name].mixture)}")
plt.show()

# %% tags=["nbval-check-output"]
with torch.device("meta"):                             # shapes without numbers: only to count
    counted = OmniModel(LITE)
total = sum(p.numel() for p in counted.parameters())
for name in ("phase1a", "phase1b", "phase2", "phase3"):
    free = sum(p.numel() for p in freeze(counted, PHASES[name]))
    print(f"{name}: {free:10,d} of {total:,d} weights are free: {', '.join(PHASES[name].trains)}")

# %% [markdown]
# At the paper's size the numbers are far more lopsided (notebook 04 draws them). What is grey and hatched gets no
# gradient at all; section 5.6 checks that not one of its bits changes.
#
# ## 5.2 What does our material look like?
#
# Eight hundred spoken questions with their transcripts, answers and the answers' codes; as in the real training six of
# ten are heard as another room and another microphone would give them. Whisper hears each of them once, now, and
# never again: the ears are frozen, so their features can be kept in a file.

# %%
CLIPS = 800                                            # questions to train on; fewer is quicker
FOLDER, SUBSET, VOCAB, STACK = CHECKPOINTS / "lite", ROOT / "data" / "subset", LITE.vocab, LITE.ear.stack
tokenizer, ears = load_tokenizer(FOLDER), Ears.from_pretrained(LITE.ear.whisper)
scratch = tempfile.TemporaryDirectory()
train_rows = read_rows([SUBSET / "train.parquet"])[:CLIPS]
held_rows = read_rows([SUBSET / "dev_voices.parquet"])  # spoken by people that no training ever hears


def listen(rows, name, augmented=0.0):
    """Features of every row's question, in a file that is mapped, not read."""
    path = Path(scratch.name) / name
    store_features(path, hear_all(ears, rows, augmented))
    return FeatureStore(path, LITE.ear.width)


train_store, held_store = listen(train_rows, "train.f16", augmented=0.6), listen(held_rows, "held.f16")

# %%
def ids(text):
    return tuple(tokenizer.encode(text).ids)


def decode(tokens):
    return tokenizer.decode(list(tokens)).removeprefix(" ")


corpus = small_corpus(tokenizer, train_rows, train_store)


def batch_of(rows, store, task):
    """One batch of all these rows, laid out for a task."""
    items = [Item(task, ids(row.question), ids(row.question if task == Task.A1T1 else row.answer), clip, row.codes)
             for clip, row in enumerate(rows)]
    laid = [lay_out(item, VOCAB, -(-store.length(item.clip) // STACK)) for item in items]
    return gather(items, laid, VOCAB, store)


print(f"{len(corpus.transcribed)} questions to hear, {len(corpus.spoken)} answers to say, {len(held_rows)} held out")

# %% [markdown]
# ### Exercise 1 (10 min, difficulty 2/5): four features, one position
#
# The adapter joins `stack` neighbouring features into one position before its first layer: 50 a second become 12.5.
# Write `my_stack(features, stack)`: `(B, T, D)` to `(B, ceil(T / stack), stack * D)`, the last group filled up with
# zeros.
#
# <details><summary>Hint</summary>
#
# `torch.nn.functional.pad(features, (0, 0, 0, missing))` adds zeros at the end of the time axis; then one `reshape`
# does it.
# </details>

# %%
my_stack = None  # replace me
checks.stacking(my_stack)

# %% [markdown]
# ## 5.3 What must a frozen language model know already?
#
# In 1a the language model will not change, so it can only transcribe if it already knows a task that is *like*
# transcribing. Ours was given two, during its pretraining on text (mark `asr`: "write down what came in"):
#
# - **copy**: a sentence in the text row, and then the same sentence again;
# - **slow copy**: the same, but the words stand far apart, at the pace of speech, with silence between them.
#
# Look at a slow one. If the adapter could put a word's vector at the place where the word is spoken, the frozen model
# would do the rest.

# %%
random.seed(0)
question = ids(train_rows[0].question)
slow = Item(Task.A1T1, question, question, slow=True)
row = lay_out(slow, VOCAB, 0).text_in.tolist()
NAMES = {VOCAB.eot: "<end>", VOCAB.pad_t: ".", VOCAB.input_t: "<input>", VOCAB.asr: "<asr>"}
print(" ".join(NAMES[i] if i in NAMES else decode([i]) for i in row))

# %% [markdown]
# Guess first: the loss (in nats a token) of this model on copies, on slow copies, and on real sound through an
# adapter of random weights. Guessing among all 2,112 ids would cost ln 2112.

# %%
@torch.no_grad()
def held_loss(model, heard):
    """The losses of one batch that is never trained on."""
    return {name: float(value) for name, value in omni_loss(model, heard).items()}


text_model = load_model(FOLDER, "text")                # the text-only language model; its ears and voice are random
wanted = [ids(row.question) for row in held_rows]
kinds = {"copy": [Item(Task.T1T2, q, q, copy=True) for q in wanted],
         "slow copy": [Item(Task.A1T1, q, q, slow=True) for q in wanted]}
before = {}
for kind, items in kinds.items():
    before[kind] = held_loss(text_model, gather(items, [lay_out(i, VOCAB, 0) for i in items], VOCAB, None))["text"]
held_a1t1 = batch_of(held_rows, held_store, Task.A1T1)
before["sound"] = held_loss(text_model, held_a1t1)["text"]

fig, ax = plt.subplots(figsize=(9, 2.6))
bars = ax.barh(list(before), list(before.values()), color=[plots.RED, plots.RED, plots.GREEN])
ax.bar_label(bars, fmt=" %.2f")
ax.axvline(math.log(VOCAB.text_size), color=plots.GREY, ls="--")
ax.text(math.log(VOCAB.text_size), -0.55, " guessing", color=plots.GREY, va="bottom")
ax.set(xlabel="loss, nats a token")
ax.invert_yaxis()
plt.show()
assert max(before["copy"], before["slow copy"]) < 0.5 * before["sound"]

# %% [markdown]
# The bars that one can hardly see are the knowledge that 1a builds on; the long one is the gap that the adapter has
# to close. Where it ends before the line of guessing, that is no hearing yet: questions begin alike, and the model
# knows how they begin.
#
# ## 5.4 How would the adapter know where a word is?
#
# The transcript says which words came, and in which order, but not when. The paper's way is to let the transcript's
# loss come back through the frozen language model: "the third word was unlikely". For a small model that is a thin
# thread. It can lower such a loss for a long time by guessing likelier sentences, before it listens at all. So the
# course's recipe gives the ears a hint instead, a loss of training only.
#
# The idea: what the adapter puts at a position should **lie near the embedding of the word spoken there**, or of
# silence where none is. Where a word stands in the text row, the eight rows of that step add up to `word + 7 silent
# audio rows`. Where something is heard, they add up to `silent text row + 7 * heard`. The trunk should not see a
# difference; so subtract, and measure the distance to every word's embedding. The nearer, the likelier, as under a
# Gaussian around each word:

# %%
def naive_words(model, heard):
    """heard (n, D) of the adapter -> probability of every token, and last of none, at each position (n, 2049)"""
    words = model.text_embed.weight
    silent_audio = sum(model.audio_embed.weight[q * VOCAB.audio_size + VOCAB.pad_a] for q in range(7))
    candidates = torch.cat([words[: VOCAB.text_base], words[VOCAB.pad_t][None]])
    variance = WORD_SPREAD * candidates.square().sum(1).median()
    rows = []
    for vector in heard:
        word_like = 7 * vector + words[VOCAB.pad_t] - silent_audio
        distance = (word_like - candidates).square().sum(1)
        rows.append((-distance / (2 * variance)).softmax(0))
    return torch.stack(rows)


with torch.no_grad():
    some = text_model.asr_adapter(held_store[0][None].float())[:, 8:11]      # three positions of one question
    library, _ = text_model.likeness(some)                                  # log probabilities, and distances
    torch.testing.assert_close(naive_words(text_model, some[0]), library[0].exp(), rtol=1e-3, atol=1e-5)

# %% [markdown]
# Now the *when*. **Connectionist temporal classification** (CTC) does not decide it. It takes all ways to place the
# words in their order, with silence between them and each word held for as long as one likes, and adds up their
# probabilities. Guess first: two words, "0" and "1", and four positions. How many ways are there?

# %%
def collapse(path, silence):
    """What a path says: repeated ids count once, silence not at all."""
    return [i for n, i in enumerate(path) if i != silence and (n == 0 or path[n - 1] != i)]


p = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)          # word 0, word 1, silence
ways = [path for path in itertools.product(range(3), repeat=4) if collapse(path, 2) == [0, 1]]
naive = sum(math.prod(float(p[t, i]) for t, i in enumerate(path)) for path in ways)
library = ctc_loss(p.log()[None], torch.tensor([4]), [[0, 1]])             # -log, a word; without listing the ways
torch.testing.assert_close(torch.tensor(-math.log(naive) / 2), library, rtol=1e-4, atol=1e-5)

# %% tags=["nbval-check-output"]
print(len(ways), "ways:", " ".join("".join("01."[i] for i in path) for path in ways))
assert len(ways) == math.comb(4 + 2, 2 * 2)            # n different words in T positions: T + n over 2 n
print(f"10 words in 30 positions: {math.comb(30 + 10, 2 * 10):,} ways")

# %% [markdown]
# For a real question nobody can list the ways; the library adds them up position by position, as one does with hidden
# Markov models, and the gradient flows into all of them at once. Likely ways get more of it and become likelier,
# until one is left: the words find their places by themselves. (The library adds a small pull towards the nearest
# embedding, so that the adapter does not only point in the direction of a word, but arrives: `guide.hearing_loss`.)
#
# Note what is *not* needed for this loss: the language model. It need not run at all, so a step is cheaper.
#
# ## 5.5 One loop for every phase
#
# Here is a whole training in one cell. `freeze` lets gradients into the phase's parts only; `batches` lays out items
# of like length, up to 2,048 positions a batch; the rate climbs for some steps and then falls along half a cosine;
# gradients are clipped to a length of 1. Two optimizers share the work: AdamW takes the embeddings, heads and vectors,
# and Muon the matrices between layers. Muon makes all directions of a matrix's step equally long, so that what a step
# says weakly is learnt as well (Jordan et al. 2024, kellerjordan.github.io/posts/muon). The library's loop also gives
# some parts less than the whole rate (`Phase.rates`); here all learn alike.

# %%
def train(model, phase, corpus, warmup=20):
    """`phase.steps` steps; returns the losses of each. `omni_lite.train.train_phase` does more: save, go on, check."""
    torch.manual_seed(0)
    random.seed(f"{phase.name} 0")
    free = freeze(model, phase)
    silence = hold_silence(model)                      # the embedding of silence is everywhere: it stays (section 5.11)
    stream = batches(corpus.draw(phase.mixture), VOCAB, STACK, corpus.store, phase.steps_per_batch)
    inner = inner_matrices(model, phase.muon)
    muon = torch.optim.Muon([p for p in free if p in inner], weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW([p for p in free if p not in inner], betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    history = []
    for step in range(phase.steps):
        model.train().zero_grad()
        losses = step_losses(model, next(stream), phase)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(free, 1.0)
        for optimizer in (adam, muon):
            optimizer.param_groups[0]["lr"] = cosine(step, phase.steps, phase.peak, phase.end, warmup)
            optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
        if (step + 1) % max(1, phase.steps // 6) == 0:
            print(f"{phase.name}  step {step + 1}/{phase.steps}  loss {history[-1]['loss']:.2f}")
    silence.remove()
    model.eval()
    return history

# %%
sizes = byte_lengths(tokenizer, VOCAB)                 # for section 5.9


def step_losses(model, heard, phase):
    """Half the precision where it does no harm, and plain attention: quicker than the fused one for short rows."""
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        return omni_loss(model, heard, phase.rows, phase.guide, sizes, phase.ctc, streams=phase.streams)


def weights(model, part):
    """All weights of a part as one vector."""
    return torch.cat([p.detach().flatten() for p in getattr(model, part).parameters()])


short = replace(PHASES["phase1a"], steps=3)
ours, theirs = deepcopy(text_model), deepcopy(text_model)
train(ours, short, corpus, warmup=100)
train_phase(theirs, short, corpus, Path(scratch.name))
way, other_way = (weights(m, "asr_adapter") - weights(text_model, "asr_adapter") for m in (ours, theirs))
assert way.norm() > 0 and (way - other_way).norm() < 0.01 * way.norm()      # the naive loop is the library's

# %% [markdown]
# ### Exercise 2 (10 min, difficulty 2/5): freeze
#
# Write `my_freeze(model, names)`: let gradients into the parts whose names are given and into no other, and return
# the list of parameters that may change. A part may have been frozen or free before.
#
# <details><summary>Hint</summary>
#
# `model.named_children()` gives pairs of name and part; `part.requires_grad_(True or False)` sets all parameters of a
# part.
# </details>

# %%
my_freeze = None  # replace me
checks.freezing(my_freeze)

# %% [markdown]
# ## 5.6 Phase 1a: the first ears
#
# We train two adapters from the same start: one by the hint alone, as the course's recipe does, and one the paper's
# way, through the frozen language model, for about as many *seconds*. Guess first: which of them will write down more
# words?

# %%
STEPS_1A, STEPS_PAPER = 500, 150                       # about 0.1 s and 0.2 s each
phase_1a = replace(PHASES["phase1a"], steps=STEPS_1A, steps_per_batch=2048)
paper_1a = replace(phase_1a, steps=STEPS_PAPER, rows=("text",), ctc=0.0)
my_1a, my_paper_1a = deepcopy(text_model), deepcopy(text_model)
began = perf_counter()
history_1a = train(my_1a, phase_1a, corpus)
halfway = perf_counter()
history_paper = train(my_paper_1a, paper_1a, corpus)
print(f"by the hint {halfway - began:.0f} s, through the language model {perf_counter() - halfway:.0f} s")
theirs = CARD["phase1a"]
print(f"the committed weights had {theirs['steps']:,} steps of {theirs['steps_per_batch']:,} positions")

# %%
@torch.no_grad()
def held_ctc(model):
    """The hint's loss on the held-out voices."""
    return float(omni_loss(model, held_a1t1, rows=(), ctc=1.0)["ctc"])


axes = plots.losses_and_parts([("phase 1a", [losses["loss"] for losses in history_1a], phase_1a.trains)], "by the hint")
ends = [held_ctc(text_model), held_ctc(my_1a)]
axes[0].plot([0, STEPS_1A - 1], ends, "D", color=plots.RED, ms=9, label="the same, held-out voices")
paper = plots.running_mean([losses["loss"] for losses in history_paper], 10)
axes[0].plot(paper, color=plots.ORANGE, label="the other adapter's, through the language model")
axes[0].set(yscale="log")
axes[0].legend()
plt.show()
assert ends[1] < 0.5 * ends[0]

# %% [markdown]
# Above, the losses: thin every batch, thick the running mean, the red diamonds voices that were never trained on.
# (Blue and orange are different losses: compare their courses, not their heights.) Below, what was free: one coloured
# bar, four grey ones. Did the grey ones really hold still? Not "hardly moved": not one bit.

# %%
def changes(before, after):
    """Root mean square change of a weight, part by part; 0 only where not one bit changed."""
    return {part: float((weights(after, part) - weights(before, part)).square().mean().sqrt())
            for part in plots.PART_NAMES}


fig, ax = plt.subplots(figsize=(10, 3.4))
plots.moved(changes(text_model, my_1a), ax, "phase 1a: which parts moved")
plt.show()
for name, parameter in text_model.named_parameters():
    held_still = torch.equal(parameter, my_1a.get_parameter(name))
    assert held_still == (name.split(".")[0] not in phase_1a.trains), name

# %% [markdown]
# ## 5.7 Can it write down what it hears?
#
# Before, after your training, and as committed, on people whose voices no training ever had. WER is the word error
# rate: words to change, to leave out and to put in, over the words that were said. It can exceed 100 %.

# %%
def transcripts(model, rows, store):
    """What the model writes when it hears each question."""
    out = []
    for clip in range(len(rows)):
        steps = generate(model, None, task=Task.A1T1, features=store[clip][None], decode_text=decode, limit=30)
        out.append("".join(step.text for step in steps))
    return out


committed_1a = load_model(FOLDER, "phase1a")
models = {"before": text_model, "through the LM": my_paper_1a, "yours": my_1a, "committed": committed_1a}
said = {name: transcripts(model, held_rows, held_store) for name, model in models.items()}
truth = [row.question for row in held_rows]
losses = {name: held_loss(model, held_a1t1)["text"] for name, model in models.items()}
for name in models:
    print(f"{name:14s} loss {losses[name]:5.2f}   WER {wer(truth, said[name]):5.1f} %")
for clip in range(4):
    print("\nsaid          ", truth[clip], *[f"\n{name:14s} {said[name][clip]}" for name in models])
assert losses["committed"] < min(losses["yours"], losses["before"])

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 2.8))
colors = (plots.GREY, plots.ORANGE, plots.SKY, plots.BLUE)
axes[0].barh(list(models), [losses[name] for name in models], color=colors)
axes[0].set(xlabel="held-out loss, nats a token")
axes[1].barh(list(models), [wer(truth, said[name]) for name in models], color=colors)
axes[1].set(xlabel="WER, % (lower is better)")
for ax in axes:
    ax.invert_yaxis()
plt.show()

# %% [markdown]
# Be honest with the list. A minute is little: expect some right words, and sentences that are fluent and wrong. The
# frozen language model makes a sentence out of whatever it gets; that is why a wrong transcript can look so
# convincing, above all that of the adapter that learnt *through* it. The committed adapter has had the same hint,
# more steps and many more voices.
#
# Note also which number moves first. The loss falls before the word error rate does: a right word that climbs from
# rank 1,000 to rank 10 changes the loss, but not the transcript.
#
# ### Pointing is not arriving
#
# In two places the course's model is not the paper's. Its adapter also looks at the neighbours of each position
# (notebook 04 counts its blocks); and there is this. The adapter's vector points at the right word, but it lands
# beside it: so small an adapter cannot hit two thousand exact places. A large language model finds its way from
# there. A small one, which knows words only as exact embeddings, does not. So between the two stands a lookup without
# any weights: the probabilities of section 5.4, and the average of the words' embeddings under them. A clear word arrives exactly;
# of an unclear one the language model gets all that it may have been (`OmniModel.soft_words`). Here is the same
# committed adapter with and without it:

# %%
raw_1a = deepcopy(committed_1a)
raw_1a.config = replace(raw_1a.config, ear=replace(raw_1a.config.ear, soft_words=False))
with torch.no_grad():
    heard = committed_1a.asr_adapter(held_store[0][None].float())
    _, beside = committed_1a.likeness(heard)
    _, arrived = committed_1a.likeness(committed_1a.soft_words(heard))
print(f"squared distance to the nearest word, in parts of its squared length: {beside.mean():.2f} as the adapter "
      f"puts it, {arrived.mean():.2f} after the lookup")
raw_loss = held_loss(raw_1a, held_a1t1)["text"]
print(f"loss of the transcripts: {raw_loss:.2f} without, {losses['committed']:.2f} with it")
assert losses["committed"] < raw_loss and arrived.mean() < 0.5 * beside.mean()

# %% [markdown]
# The transcripts of "committed" above still stutter ("Can Can you"): a word that is spoken slowly fills two positions,
# and nobody told the language model that they are one word. Phase 2 will.
#
# All that the adapter may do is to put vectors in front of a model that never moves. That sets a limit, and phase 2
# (notebook 06) removes it.

# %% [markdown]
# ## 5.8 Which moment was that word heard in?
#
# The adapter was never told when a word is spoken. Does it know? That is one place to look: the probability that
# section 5.4 gives each word at each position. A second place is the trunk: when a word is written, its attention may
# look back at the positions where sound stands, twelve and a half a second. We switch the trunk to `eager` attention,
# which gives its weights away, and look at all heads of the committed model *after all phases*, which has learnt to
# listen.
#
# First, are these really the weights? The library can compute one head by hand (`guide.head_attention`, which also
# trains the voice below); both must agree.

# %%
@torch.no_grad()
def look_back(model, features, tokens, task=Task.A1T1):
    """Attention of every head from each token, when it is written, to what was heard: (layers, heads, n, T)"""
    model.trunk.set_attn_implementation("eager")
    T = model.asr_adapter.num_positions(len(features))
    one = example(VOCAB, task, positions=T, answer_text=tokens)
    x = model.embed(one.text_in[None], one.audio_in[None], features[None])
    out = model.trunk(inputs_embeds=x, use_cache=False, output_attentions=True)
    model.trunk.set_attn_implementation("sdpa")
    says = (one.text_target >= 0) & (one.text_target < VOCAB.text_base)     # the steps that write a token
    by_hand = head_attention(model.trunk.layers[0], x, model.trunk.rotary_emb, head=1).exp()
    torch.testing.assert_close(by_hand, out.attentions[0][:, 1], rtol=1e-3, atol=1e-4)
    return torch.stack(out.attentions, dim=1)[0][:, :, says, 1 : 1 + T]


final = load_model(FOLDER)                             # after all phases
maps = look_back(final, held_store[0].float(), wanted[0])
print("layers, heads, tokens, moments:", tuple(maps.shape))

# %% [markdown]
# Most heads have other things to do: many look at one and the same place, whatever is written. Which one reads *in
# order*, later words at later moments? We measure it: the correlation between a token's number and the moment it
# looks at, times the share of its attention that falls on sound at all. To be fair, we choose the head on clips of
# the training set, and look at the held-out ones only afterwards. With so many heads to choose from, some head would
# look orderly on any single clip by luck.

# %%
def order(maps):
    """Correlation of token and moment times attention to the sound: (layers, heads, n, T) -> (layers, heads)"""
    _, _, n, T = maps.shape
    share = maps / maps.sum((2, 3), keepdim=True).clamp(min=1e-9)
    token, moment = torch.arange(n)[:, None].float(), torch.arange(T)[None].float()
    token = token - (share * token).sum((2, 3), keepdim=True)
    moment = moment - (share * moment).sum((2, 3), keepdim=True)
    spread = (share * token**2).sum((2, 3)) * (share * moment**2).sum((2, 3))
    return (share * token * moment).sum((2, 3)) / spread.clamp(min=1e-6).sqrt() * maps.sum(3).mean(2)


def orders(model, rows, store):
    """Mean over some clips."""
    return torch.stack([order(look_back(model, store[clip].float(), ids(row.question)))
                        for clip, row in enumerate(rows)]).mean(0)


chosen = orders(final, train_rows[:16], train_store)
layer, head = divmod(int(chosen.argmax()), chosen.shape[1])
held = orders(final, held_rows, held_store)
print(f"layer {layer}, head {head}: order {chosen[layer, head]:.2f} on the clips it was chosen on, "
      f"{held[layer, head]:.2f} held out; mean of all heads {held.mean():.2f}")
assert held[layer, head] > held.mean()

# %% [markdown]
# Attention shows where a head *looks*, not what the model *needs*. So we also ask in a second way that knows nothing
# of attention: hide a quarter of a second of the sound (put the mean feature there), and see how much less likely
# each word becomes. Do all three point at the same moments?

# %%
@torch.no_grad()
def hide(model, features, tokens, task=Task.A1T1, width=3):
    """How many nats each token loses when `width` positions of the sound are hidden: (n, T)"""
    T = model.asr_adapter.num_positions(len(features))
    one = example(VOCAB, task, positions=T, answer_text=tokens)
    versions = features[None].repeat(T + 1, 1, 1)      # version 0 hears everything
    for t in range(T):
        first = max(0, t - width // 2) * STACK
        versions[t + 1, first : (t + width // 2 + 1) * STACK] = features.mean(0)
    x = model.embed(one.text_in.expand(T + 1, -1), one.audio_in.expand(T + 1, -1, -1), versions)
    logp = model.text_logits(model.run(x)).log_softmax(-1)
    says = (one.text_target >= 0) & (one.text_target < VOCAB.text_base)
    logp = logp[:, says].gather(2, torch.tensor(tokens)[None, :, None].expand(T + 1, -1, 1))[..., 0]
    return (logp[0] - logp[1:]).T

# %%
@torch.no_grad()
def words_there(model, features, tokens):
    """How much what the adapter put at each position resembles each token, by the measure of section 5.4: (n, T)"""
    log_probs, _ = model.likeness(model.asr_adapter(features[None]))
    return log_probs[0].exp()[:, list(tokens)].T


def rows_to_one(values):
    """Each token's row between 0 and its largest value."""
    values = values.clamp(min=0)
    return values / values.amax(1, keepdim=True).clamp(min=1e-6)

# %%
SHOWN = 0                                              # which held-out question
features, tokens = held_store[SHOWN].float(), wanted[SHOWN]
names, step_s = [decode([i]).strip() for i in tokens], STACK / 50
looked = look_back(final, features, tokens)[layer, head]
pictures = {
    "what the adapter alone says, after phase 1a": rows_to_one(words_there(committed_1a, features, tokens)),
    f"attention of layer {layer}, head {head}, after all phases": looked,
    "what hiding a moment costs, after all phases": rows_to_one(hide(final, features, tokens)),
}
fig, axes = plt.subplots(4, 1, figsize=(9, 12), sharex=True, height_ratios=(0.7, 2, 2, 2))
plots.spectrogram(held_rows[SHOWN].question_wav.numpy(), EAR_RATE, axes[0])
for ax, (title, values) in zip(axes[1:], pictures.items(), strict=True):
    plots.token_map(values, names, step_s, ax, title)
axes[0].set(xlabel="", title=held_rows[SHOWN].question)
plt.show()

# %% [markdown]
# Time runs to the right, words run down; but for the single head, each row is scaled to its own maximum.
#
# The upper map is this notebook's subject: the adapter alone, in front of a frozen trunk. It has found the words by
# itself, in their order, although it was told nothing of time. Spikes rather than bars: CTC is content if a word
# shows up once, and since Whisper's encoder has already heard the whole question, a spike often comes at the end of
# its word. A word that occurs twice ("the") has a spike at both places, in both of its rows: the adapter says *what*
# is there, not *which* of them it is.
#
# The two maps below it are the whole model after all phases. Compare the columns in which the chosen head's attention
# is bright with the spikes of the first map: it looks where the adapter has put a word. It does not do so for every
# word; heads share the work, and small words are often guessed. The last map needs no attention at all: where it is
# bright, hiding that moment costs that word. Where all three maps are bright at the same place, believe them. Where
# only the attention is, a head looks at something that the model does not need. Words that can be guessed from their
# neighbours cost nothing when they are hidden: their rows, scaled up, show noise.

# %%
def one_word(word):
    """The chosen head's attention while one word is written, over the sound."""
    fig, ax = plt.subplots(figsize=(8, 2))
    plots.spectrogram(held_rows[SHOWN].question_wav.numpy(), EAR_RATE, ax)
    over = ax.twinx()
    over.step(np.arange(len(looked[word])) * step_s, looked[word], where="post", color=plots.YELLOW, lw=3)
    over.set(ylim=(0, 1), ylabel="attention", title=f"while it writes: {names[word]}")
    plt.show()


one_word(len(names) - 2)

# %%
ipywidgets.interactive(one_word, word=ipywidgets.IntSlider(1, 0, len(names) - 1, continuous_update=False))

# %% [markdown]
# And an *answer's* word? It need not be spoken in the question at all. Guess first, for the question below: which
# words of the answer hang on which moment?

# %%
FITTING = ("capitals", "opposites", "arithmetic", "numbers")
asked = next((i for i, row in enumerate(held_rows) if row.skill in FITTING), 0)
row = held_rows[asked]
reply = ids(row.answer)
costs = hide(final, held_store[asked].float(), reply, Task.A1T2)

fig, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, height_ratios=(0.7, 2))
plots.spectrogram(row.question_wav.numpy(), EAR_RATE, axes[0])
axes[0].set(xlabel="", title=f"{row.question}  ->  {row.answer}")
words = [decode([i]).strip() for i in reply]
plots.token_map(costs.clamp(min=0), words, step_s, axes[1], "nats lost when a moment is hidden")
plt.show()

# %% [markdown]
# This map is not scaled by rows: dark rows are words that hardly depend on any moment, because the words before them
# say it all. The bright ones are decisions. In a sum, the result hangs on both numbers; in a capital, the name of the
# city hangs on the name of the country, although nothing in the sound of one gives the other. That part is not
# hearing: it is what the model knows.

# %% [markdown]
# ## 5.9 Phase 1b: why does a voice need to be shown where to look?
#
# Now the other half: text in, codes out, everything frozen but the voice. The layout makes it hard. The text row says
# its tokens at once, one a step, but speaking a token takes some three steps. So at step 30 the voice is still busy
# with token 10, and must find it, among positions that drift ever further back. Nothing in the loss of the codes says
# so. A small model then learns to *sound* like the voice long before it says the words.
#
# **Guided attention** is a hint for one head of the TTS adapter: speech goes through its text in order, and about as
# fast as the letters go by. Frame `t` of `T` is expected at a token if `(t + 0.5) / T` lies within that token's share
# of the letters; a little before or after is nearly as good. Naive:

# %%
def naive_expected(sizes, frames, tolerance=TOLERANCE):
    """How welcome each token is at each frame. sizes: bytes of each token -> (frames, tokens), at most 1"""
    W = torch.zeros(frames, len(sizes))
    for t in range(frames):
        now, end = (t + 0.5) / frames, 0.0
        for n, size in enumerate(sizes):
            start, end = end, end + size / sum(sizes)
            off = max(start - now, now - end, 0.0)     # 0 while it is this token's turn
            W[t, n] = math.exp(-(off**2) / (2 * tolerance**2))
    return W


held_t1a2 = batch_of(held_rows, held_store, Task.T1A2)
expected_at, W = expected_attention(held_t1a2.batch, VOCAB, sizes)          # the library: a whole batch at once
text = held_t1a2.batch.text_target
for b, row in enumerate(held_rows):
    says = (text[b] >= 0) & (text[b] < VOCAB.text_base)
    naive = naive_expected([float(sizes[i]) for i in ids(row.answer)], row.codes.shape[1])
    torch.testing.assert_close(naive, W[b][expected_at[b]][:, says], rtol=1e-4, atol=1e-5)

# %%
def show_hint(tolerance):
    """What the hint asks for, for one answer."""
    row = held_rows[asked]
    hint = naive_expected([float(sizes[i]) for i in ids(row.answer)], row.codes.shape[1], tolerance)
    fig, ax = plt.subplots(figsize=(10, 3.6))
    words = [decode([i]).strip() for i in ids(row.answer)]
    plots.token_map(hint.T, words, FRAME_SECONDS, ax, f"tolerance {tolerance:.2f}")
    plt.show()


show_hint(TOLERANCE)

# %%
slider = ipywidgets.FloatSlider(0.02, min=0.01, max=0.3, step=0.01, continuous_update=False)
ipywidgets.interactive(show_hint, tolerance=slider)

# %% [markdown]
# The wide bright band is the hint: roughly which word, not which sound. With a small tolerance it would claim to know
# the rhythm to the frame, which letters do not tell; with a large one it says nothing. The loss is `-log` of the
# attention that falls into the band, so it is satisfied when all of it does. It acts on one head of one block, in
# training only; the finished model is the paper's.

# %% [markdown]
# ### Exercise 3 (10 min, difficulty 3/5): whose turn is it?
#
# Write `my_turn(sizes, frames)`: for each frame the number of the token being spoken in the frame's middle, as an
# int64 tensor `(frames,)`. `sizes` are the tokens' bytes: with `[2, 6]` and 8 frames the answer is `[0, 0, 1, 1, 1,
# 1, 1, 1]`.
#
# <details><summary>Hint</summary>
#
# Token `n` ends at `(sizes[0] + ... + sizes[n]) / sum(sizes)` of the answer. `torch.searchsorted(ends, now)` finds
# the first end that is not before `now`.
# </details>

# %%
my_turn = None  # replace me
checks.whose_turn(my_turn)

# %% [markdown]
# ## 5.10 Train the voice
#
# From the committed ears of 1a. Only the audio rows count in the loss (the frozen text mouth cannot learn anyway),
# plus the hint. Guess first: which falls faster, the loss of the codes or that of the hint?

# %%
STEPS_1B = 200                                         # about 0.25 s each
phase_1b = replace(PHASES["phase1b"], steps=STEPS_1B)
print(f"{STEPS_1B} steps on {len(corpus.spoken)} answers; the committed weights had {CARD['phase1b']['steps']:,} steps")
my_1b = deepcopy(committed_1a)
history_1b = train(my_1b, phase_1b, corpus)

# %%
axes = plots.losses_and_parts([("phase 1b", [losses["audio"] for losses in history_1b], phase_1b.trains)], "codes")
guided = [losses["guide"] for losses in history_1b]
axes[0].plot(plots.running_mean(guided, 10), color=plots.ORANGE, label="hint")
axes[0].axhline(math.log(VOCAB.audio_size), color=plots.GREY, ls="--", lw=1)
axes[0].text(STEPS_1B, math.log(VOCAB.audio_size), "guessing", ha="right", va="bottom", color=plots.GREY)
axes[0].legend()
plt.show()

fig, ax = plt.subplots(figsize=(10, 3.4))
plots.moved(changes(committed_1a, my_1b), ax, "phase 1b: which parts moved")
plt.show()
assert guided[-1] < 0.7 * guided[0] and history_1b[-1]["audio"] < history_1b[0]["audio"]

# %% [markdown]
# The hint is learnt in no time; the codes fall from guessing to a plateau and then crawl. A code stands for a sound's
# fine shape, of which there are many for the same word, so this loss never comes near zero (notebook 04, entropy).
# Does the head now look where it should, in answers that it never saw?

# %%
@torch.no_grad()
def voice_looks(model, heard):
    """Attention of the guided head, one (frames, tokens) for each example."""
    batch = heard.batch
    hidden = model.run(model.embed(batch.text_in, batch.audio_in))
    block = model.tts_adapter.blocks[len(model.tts_adapter.blocks) // 2]    # the guided one; note what goes into it
    seen = []
    handle = block.register_forward_pre_hook(lambda _, into: seen.append(into[0]))
    model.speak(hidden)
    handle.remove()
    attention = head_attention(block, seen[0], model.tts_adapter.rotary).exp()        # (B, S, S)
    says = (batch.text_target >= 0) & (batch.text_target < VOCAB.text_base)
    return [a[f][:, s] for a, f, s in zip(attention, expected_at, says, strict=True)]


committed_1b = load_model(FOLDER, "phase1b")
voices = {"before": committed_1a, "yours": my_1b, "committed": committed_1b}
looks = {name: voice_looks(model, held_t1a2) for name, model in voices.items()}

fig, axes = plt.subplots(1, 3, figsize=(15, 4), sharey=True)
for ax, (name, maps) in zip(axes, looks.items(), strict=True):
    plots.token_map(maps[asked].T, words, FRAME_SECONDS, ax, name)          # `words` of the answer of section 5.8
plt.show()

# %%
def on_target(maps):
    """Share of the attention that falls on the token whose turn it is, give or take the tolerance."""
    hints = [W[b][expected_at[b]][:, (text[b] >= 0) & (text[b] < VOCAB.text_base)] for b in range(len(maps))]
    return float(torch.cat([(looked * hint).sum(1) for looked, hint in zip(maps, hints, strict=True)]).mean())


for name, model in voices.items():
    codes = held_loss(model, held_t1a2)["audio"]
    print(f"{name:10s} attention on target {on_target(looks[name]):.2f}   held-out loss of the codes {codes:.2f}")
assert on_target(looks["yours"]) > on_target(looks["before"]) + 0.1
assert held_loss(my_1b, held_t1a2)["audio"] < held_loss(committed_1a, held_t1a2)["audio"] - 0.3

# %% [markdown]
# Left, an untrained head spreads its attention over all that it has seen. Then a staircase: word after word, each for
# as long as it takes to say, although nobody told the head where a word *begins*; it had only the share of letters.
# Look for words that the trained head holds longer or shorter than the straight band of the hint: there it has found
# the real rhythm.

# %% [markdown]
# ## 5.11 Did the language model notice anything?
#
# The trunk is frozen, but the audio table is not, and its rows for silence stand beside every word of text (notebook
# 04). `hold_silence` keeps those. So a question in text must be answered with *bit-equal* logits as before phase 1.
# Which rows of the table did move?

# %%
written = batch_of(held_rows, held_store, Task.T1T2)
with torch.no_grad():
    logits = [model.text_logits(model.run(model.embed(written.batch.text_in, written.batch.audio_in)))
              for model in (text_model, my_1a, my_1b)]
tables = [m.audio_embed.weight.detach().view(7, VOCAB.audio_size, -1) for m in (committed_1a, my_1b)]
row_moved = (tables[0] != tables[1]).any(-1)           # (7, 1088)
assert torch.equal(logits[0], logits[1]) and torch.equal(logits[1], logits[2])
assert not row_moved[:, VOCAB.pad_a].any()

# %% tags=["nbval-check-output"]
marks = {name: getattr(VOCAB, name) for name in ("eoa", "pad_a", "input_a", "answer_a")}
print("text logits: equal to the last bit, before phase 1 and after it")
print({name: bool(row_moved[:, mark].any()) for name, mark in marks.items()}, "codes:", bool(row_moved[:, :1024].any()))

# %% [markdown]
# `pad_a` held still and so did `input_a`, which no spoken answer contains. But `eoa`, the end of audio, moved: the
# voice learns to stop. And `eoa` also ends every *question* that is heard. A small leak from the voice into the ears!
# How much does it cost? We measure it rather than argue:

# %%
for name, model in (("before 1b", committed_1a), ("after your 1b", my_1b)):
    print(f"transcript loss on held-out voices, {name}: {held_loss(model, held_a1t1)['text']:.3f}")

# %% [markdown]
# ## 5.12 What does it sound like?
#
# In task T1A2 the text mouth of the frozen model has never been asked to write while something is spoken, so we do
# not let it: a decoder that reads a given text aloud. Text row: the script. Audio rows: whatever the voice says,
# sampled.

# %%
class Reader(SlowDecoder):
    """The text row says this script, whatever the model would say; the voice is the model's."""

    def __init__(self, model, tokens):
        super().__init__(model)
        self.script = iter([*tokens, VOCAB.eot])

    def prefill(self, *question, **how):
        return self.follow(super().prefill(*question, **how))

    def step(self, *said, **how):
        return self.follow(super().step(*said, **how))

    def follow(self, logits):
        if logits.text is not None:
            logits.text = torch.full_like(logits.text, -torch.inf)
            logits.text[next(self.script)] = 0.0
        return logits


codec = build_codec(LITE.codec)
fill(codec, FOLDER / "codec.safetensors")
codec = codec.eval()

# %%
def read_aloud(model, row):
    """(N,) float32 at 24 kHz; a quarter of a second of nothing if the voice stays silent."""
    steps = generate(model, codec, task=Task.T1A2, text=ids(row.question), batch_parallel=False, sampling=SAMPLING,
                     limit=60, decoder=Reader(model, ids(row.answer)))
    chunks = [step.pcm for step in steps if step.pcm is not None]
    return np.concatenate(chunks) if chunks else np.zeros(CODEC_RATE // 4, np.float32)


row = held_rows[asked]
with torch.no_grad():
    sounds = {"the recording, through the codec": codec.decode(row.codes[None])[0, 0].numpy()}
sounds |= {f"{name}, phase 1b": read_aloud(voices[name], row) for name in ("yours", "committed")}
judge = load_whisper("tiny.en", full=True)
heard = transcribe(judge, [torch.from_numpy(wave) for wave in sounds.values()], CODEC_RATE)
print("the script                        ", row.answer)
for name, words in zip(sounds, heard, strict=True):
    print(f"{name:33s}  Whisper hears: {words}")

# %%
fig, axes = plt.subplots(3, 1, figsize=(8, 4.8))
for ax, (name, wave) in zip(axes, sounds.items(), strict=True):
    plots.spectrogram(wave, CODEC_RATE, ax)
    ax.set(title=name, xlabel="")
plt.show()
for name, wave in sounds.items():
    display(HTML(f"<p>{name}<br>{player(wave, CODEC_RATE)}</p>"))

# %% [markdown]
# The recording shows what the codec alone can do. Below it, your voice after a minute of training: the pitch and the
# colour of a human voice, with the bands of vowels and the gaps between them, but probably no words. Read what
# Whisper makes of each; it always hears *something*, that is how it was trained. The committed voice had many times
# the steps and the sentences. Phase 3 (notebook 07) goes on from there, with everything free.

# %% [markdown]
# ## What to try next
#
# - Set `guide=0.0` in `phase_1b` and train again: how far does the loss of the codes fall, and what does the head
#   look at?
# - Train 1a on `CLIPS = 250`. How does the gap between training loss and held-out loss change? This is over-fitting,
#   and more voices are the remedy.
# - Which head does `orders` choose for your own `my_1a`? Is its order better than the mean of the heads by more than
#   luck?
# - Open question: hold `eoa` as well while the voice is trained (a hook as in `train.hold_silence`). Can the voice
#   still learn to stop?
# - On to **06**: the language model itself begins to move.
