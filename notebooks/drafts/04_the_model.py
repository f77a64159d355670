# %% [markdown]
# # 04 · The model: one language model with two mouths
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/04_the_model.ipynb)
#
# At the end you will be able to
#
# - compute, with loops and an average, what the language model reads at one step, and get the library's numbers;
# - count every parameter of the `lite` model and of the paper's, by arithmetic alone, and say where they are;
# - show that stepping with a cache says the same as reading everything anew;
# - say which part of the model a spoken question or a spoken answer teaches, and which it cannot reach.
#
# * **Needs** only committed files: the `lite` weights and two small files of questions. No other notebook, no
# network.
# * **Takes** TIME; 25 to 35 minutes to read.
#
# You should know what a transformer decoder is (blocks of attention and MLP, a vector a step), and have seen the
# eight delayed rows of notebook 03. Nothing is trained here.

# %%
import sys

if "google.colab" in sys.modules:                      # on your own machine: `make lab`
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import math
from dataclasses import replace
from time import perf_counter

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import ListedColormap

from omni_lite import checks, plots
from omni_lite.assistant import CHECKPOINTS, ROOT, load_model
from omni_lite.config import LITE, MINI_OMNI
from omni_lite.data import Heard, load_tokenizer, read_rows
from omni_lite.hear import Ears
from omni_lite.model import OmniModel
from omni_lite.streams import TASKS, Task, collate, example
from omni_lite.train import omni_loss

plots.use_style()

# %% [markdown]
# ## 4.1 What is in it?
#
# A text model has one way in (token embeddings), a stack of transformer blocks, and one way out (a text head).
# Mini-Omni keeps all of that and adds what is needed to hear and to speak:
#
# - **ears**: Whisper's encoder, frozen, and a small **ASR adapter** that turns its features into vectors of the
#   language model's width;
# - **seven more rows of embeddings**, one for each audio stream of a codec frame;
# - a **second mouth**: further transformer blocks (the **TTS adapter**) and a head with seven outputs.
#
# Guess first: which of these has the most weights in our `lite` model?

# %%
model = load_model(CHECKPOINTS / "lite")               # as it is after the last phase of training
VOCAB = LITE.vocab

fig, ax = plt.subplots(figsize=(11, 4))
plots.model_parts(ax=ax)
plt.show()

# %% tags=["nbval-check-output"]
for name, part in model.named_children():
    print(f"{name:12s} {sum(p.numel() for p in part.parameters()):10,d}")

# %% [markdown]
# Read the picture from left to right. Sound comes in at the bottom left and text at the top left; all ways meet in
# one vector a step, the *mean of eight*. The trunk, an ordinary Qwen2, never learns where a vector came from. Then
# the ways part again: up to the words, down to the seven codes. What is hatched is frozen in every phase.
#
# `text_head` has no weights of its own: it is the table of text embeddings once more, turned round (section 4.5). The
# heaviest part is not the trunk alone. Section 4.4 counts.

# %% [markdown]
# ## 4.2 How do eight rows become one vector?
#
# Let us take a real question from the held-out voices, with its real answer, and lay both out as in notebook 03:
# `input` marks, the question's positions, `end` marks, `answer` marks, then the answer's text and its delayed codes.

# %%
tokenizer = load_tokenizer(CHECKPOINTS / "lite")
ears = Ears.from_pretrained(LITE.ear.whisper)
row = read_rows([ROOT / "data" / "subset" / "test_voices.parquet"])[0]


def ids(text):
    return tuple(tokenizer.encode(text).ids)


features = ears.hear(row.question_wav)                  # (1, T, 384), 50 a second
T = model.asr_adapter.num_positions(features.shape[1])  # positions in the language model, 12.5 a second
one = example(VOCAB, Task.A1A2, positions=T, answer_text=ids(row.answer), answer_codes=row.codes)
seconds = len(row.question_wav) / 16000
print(f"asked     {row.question}   ({seconds:.2f} s -> {features.shape[1]} features -> {T} positions)")
print(f"answered  {row.answer}   ({row.codes.shape[1]} frames)")
print(f"text row  {tuple(one.text_in.shape)}, audio rows {tuple(one.audio_in.shape)}")

# %% [markdown]
# Guess first: of the eight rows, how many say something at a typical step, and how many are just silent?

# %%
KINDS = ("silence (pad)", "mark", "text token", "audio code", "heard")


def kinds(one, heard):
    """What stands in each of the eight rows at each step, as a number into KINDS: (8, S), the text row first."""
    text = torch.ones_like(one.text_in)                                     # a mark, if nothing else
    text[one.text_in == VOCAB.pad_t] = 0
    text[one.text_in < VOCAB.text_base] = 2
    audio = torch.ones_like(one.audio_in)
    audio[one.audio_in == VOCAB.pad_a] = 0
    audio[one.audio_in < VOCAB.codebook] = 3
    audio[:, 1 : 1 + heard] = 4
    return torch.cat([text[None], audio])


fig, ax = plt.subplots(figsize=(11, 3.6))
colors = ListedColormap([plots.FROZEN, plots.BLACK, plots.RED, plots.BLUE, plots.GREEN])
ax.imshow(kinds(one, T), cmap=colors, vmin=0, vmax=4)
for kind, name in enumerate(KINDS):
    ax.plot([], [], "s", ms=10, color=colors(kind), label=name)
ax.set(yticks=range(8), yticklabels=["text", *[f"stream {q}" for q in range(7)]], xlabel="step")
ax.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1.0), handletextpad=0.1, columnspacing=1)
plt.show()

# %% [markdown]
# On the left the green block: seven rows hold the same heard vector, the text row is silent. Then two steps of marks:
# the question is over, an answer is wanted. On the right the answer: the text is said at once, one token a step, and
# has long ended while the voice goes on; the blue edge is the staircase of the delay.
#
# Silence is not nothing. A silent row holds the id `pad`, and `pad` has an embedding like any other id. So the vector
# of every step is made of exactly eight embeddings. Here is the whole rule, as slow and as plain as possible:

# %%
def naive_embed(model, text_ids, audio_ids, heard):
    """text_ids (S,), audio_ids (7, S), heard (n, D): what the adapter made of the features -> (S, D)"""
    steps = []
    for s in range(len(text_ids)):
        rows = [model.text_embed.weight[text_ids[s]]]
        for q in range(7):
            if 1 <= s <= len(heard):                                        # step 0 is the mark `input`
                rows.append(heard[s - 1])
            else:
                rows.append(model.audio_embed.weight[q * VOCAB.audio_size + audio_ids[q, s]])
        steps.append(torch.stack(rows).mean(0))
    return torch.stack(steps)


with torch.no_grad():
    heard = model.asr_adapter(features)[0]                                  # (T, 256)
    naive = naive_embed(model, one.text_in, one.audio_in, heard)
    x = model.embed(one.text_in[None], one.audio_in[None], features)        # the library, all steps at once
torch.testing.assert_close(naive, x[0], rtol=1e-4, atol=1e-5)

# %%
print("heard", tuple(heard.shape), "all steps", tuple(x.shape), "audio table", tuple(model.audio_embed.weight.shape))

# %% [markdown]
# Two details hide in the naive version.
#
# - `q * VOCAB.audio_size` is the **layer shift** of notebook 03: code 5 of stream 0 and code 5 of stream 3 are
#   different things and have different embeddings. The audio table is seven bands, one under the other.
# - A heard vector is counted **seven times**, once for each audio row. So sound has seven eighths of the input there,
#   and the embedding of the text row's silence one eighth.

# %% [markdown]
# ### Exercise 1 (10 min, difficulty 2/5): the mean without loops over steps
#
# Write `my_mean(text_table, audio_table, text_ids, audio_ids)`, with a batch this time: `text_ids` is `(B, S)`,
# `audio_ids` is `(B, 7, S)`, the result `(B, S, D)`. Nothing is heard.
#
# <details><summary>Hint 1</summary>
#
# Indexing a table with a tensor of ids of any shape looks all of them up: `text_table[text_ids]` is `(B, S, D)`.
# </details>
# <details><summary>Hint 2</summary>
#
# `V_audio` is a seventh of `len(audio_table)`. Add `torch.arange(7)[:, None] * V_audio` to `audio_ids` before you
# look up.
# </details>

# %%
my_mean = None  # replace me
checks.mean_of_eight(my_mean)

# %% [markdown]
# ## 4.3 Is anything lost in the mean?
#
# Eight vectors go in, one comes out. If you were shown only the mean, could you tell which eight ids it was made of?
# Guess first, for vectors of 256 numbers and tables of about a thousand ids each: none, half, nearly all?
#
# Here is a simple reader. It knows the tables. For each row it takes the sum of the eight, subtracts what the *other
# seven* rows add on average, and picks the entry of this row's table that lies nearest.

# %%
@torch.no_grad()
def unmix(total, tables):
    """total (N, D): sums of one entry of each table (V, D) -> the guessed entries, (N, rows)"""
    middle = torch.stack([table.mean(0) for table in tables])               # what a row adds on average
    guesses = []
    for q, table in enumerate(tables):
        rest = total - (middle.sum(0) - middle[q])
        nearest = rest @ table.T - table.square().sum(1) / 2                # largest where |rest - entry| is least
        guesses.append(nearest.argmax(1))
    return torch.stack(guesses, dim=1)


def recovered(tables, chosen):
    """Share of ids read back right from the sums; chosen: (N, rows)"""
    total = sum(table[chosen[:, q]] for q, table in enumerate(tables)).detach()
    return (unmix(total, tables) == chosen).float().mean(0)


# %%
dice = torch.Generator().manual_seed(0)
widths, rates = (16, 32, 64, 128, 256, 512, 896), []
for width in widths:
    tables = [torch.randn(1024, width, generator=dice) for _ in range(8)]
    rates.append(float(recovered(tables, torch.randint(0, 1024, (300, 8), generator=dice)).mean()))

bands = model.audio_embed.weight.view(7, VOCAB.audio_size, -1)[:, : VOCAB.codebook].detach()
tables = [model.text_embed.weight[: VOCAB.text_base].detach(), *bands]
voice_rows = read_rows([ROOT / "data" / "subset" / "dev_voices.parquet"])
spoken = torch.cat([r.codes for r in voice_rows], dim=1).T                  # (frames, 7): codes of real answers
said = torch.cat([torch.tensor(ids(r.answer)) for r in voice_rows])
n = min(len(spoken), len(said), 300)
ours = recovered(tables, torch.cat([said[:n, None], spoken[:n]], dim=1))
print("trained tables, ids read back:", " ".join(f"{rate:.2f}" for rate in ours), "(text, streams 0 to 6)")

# %%
fig, ax = plt.subplots(figsize=(9, 4))
ax.plot(widths, rates, "o-", label="random tables of 1,024 entries")
ax.plot(256, float(ours.mean()), "D", ms=11, color=plots.RED, label="the trained tables of `lite`")
for width, name in ((256, "lite"), (896, "Qwen2-0.5B")):
    ax.axvline(width, color=plots.GREY, lw=1)
    ax.text(width * 0.97, 0.03, name, rotation=90, ha="right", color=plots.GREY)
ax.set(xscale="log", xticks=widths, xticklabels=widths, ylim=(0, 1.03), xlabel="width D of the language model",
       ylabel="ids read back right")
ax.minorticks_off()
ax.legend(loc="upper left")
plt.show()

assert rates[0] < 0.2 and rates[-1] > 0.95             # random directions: too narrow, and wide enough
assert float(ours.mean()) > 20 / 1024                  # far better than guessing

# %% [markdown]
# Random directions in a wide space are nearly at right angles to each other, so a sum of eight can be taken apart
# again, once the space is wide enough: the curve climbs steeply just below our 256, and the paper's 896 has room to
# spare. That is why a mean, of all things, is enough to feed eight rows into one model.
#
# The red diamond is what this simple reader gets from the *trained* tables; the line printed above gives the text row
# and the seven streams one by one. Nobody asked training to keep the rows apart; it keeps what the trunk needs. A row
# whose vectors are long drowns the others (the next picture shows lengths), and codes that sound alike may share a
# direction, so that mistaking one for the other costs little. And the trunk has far better means than our reader: it
# sees the steps before as well.

# %%
def show_step(step):
    """The eight rows of one step, and the length of each row's embedding."""
    what = kinds(one, T)[:, step]
    rows = [model.text_embed.weight[one.text_in[step]]]
    table = model.audio_embed.weight.view(7, VOCAB.audio_size, -1)
    rows += [heard[step - 1] if what[1 + q] == 4 else table[q, one.audio_in[q, step]] for q in range(7)]
    lengths = [float(vector.detach().norm()) for vector in rows]
    fig, ax = plt.subplots(figsize=(9, 3.4))
    ax.barh(range(8), lengths, color=[colors(int(kind)) for kind in what])
    names = [tokenizer.decode([int(one.text_in[step])]).strip() if what[0] == 2 else KINDS[what[0]]]
    names += [f"code {int(one.audio_in[q, step])}" if what[1 + q] == 3 else KINDS[what[1 + q]] for q in range(7)]
    ax.set(yticks=range(8), yticklabels=names, xlabel="length of the embedding", title=f"step {step}")
    ax.invert_yaxis()
    plt.show()


show_step(T + 10)

# %% [markdown]
# One step of the answer, taken apart: the bars are the eight vectors that are averaged, by their length. Move the
# slider below from left to right through the question, the marks, and the answer. Watch the silent rows: how much do
# they weigh?

# %%
ipywidgets.interactive(show_step, step=ipywidgets.IntSlider(T + 3, 0, len(one) - 1, continuous_update=False))

# %% [markdown]
# ## 4.4 Where are the parameters?
#
# We count by arithmetic, from the configuration alone, and let the library build the same model on torch's `meta`
# device, where tensors have shapes but no numbers: the paper's half a billion weights then cost no memory.
#
# Guess first: in the *released* Mini-Omni, what share of all weights is the table of embeddings?

# %%
def count(config):
    """Parameters of every part. D width, M of the MLP, kv columns of keys and values."""
    t, v, ear = config.trunk, config.vocab, config.ear
    D, M = t["hidden_size"], t["intermediate_size"]
    kv = D * t["num_key_value_heads"] // t["num_attention_heads"]
    attention = 2 * D * D + 2 * D * kv + D + 2 * kv    # queries, output; keys, values; biases of all but the output
    block = attention + 3 * D * M + 2 * D              # an MLP of three matrices, two norms
    stacked, H = ear.stack * ear.width, ear.hidden
    mixer = 8 * D + 2 * D + 2 * 3 * D * D + 4 * D + D  # a ConvNeXt block: 7 taps, a norm, two matrices, a scale
    adapter = {"conv": 2 * stacked + stacked * H + H + H * D + D + ear.blocks * mixer,
               "swiglu": 2 * stacked * H + H * D}[ear.adapter]
    voice = config.tts_blocks * block + D + 7 * v.audio_size * D            # blocks, a norm, a head of its own
    return {"asr_adapter": adapter, "text_embed": v.text_size * D, "audio_embed": 7 * v.audio_size * D,
            "trunk": t["num_hidden_layers"] * block + D, "tts_adapter": voice if config.tts_blocks else 0}


configs = {"lite": LITE, "Mini-Omni\n(released)": MINI_OMNI,
           "Mini-Omni\n(paper's TTS)": replace(MINI_OMNI, tts_blocks=6)}
sizes = {name: count(config) for name, config in configs.items()}
for name, config in configs.items():
    with torch.device("meta"):
        built = OmniModel(config)
    for part, module in built.named_children():
        assert sum(p.numel() for p in module.parameters()) == sizes[name].get(part, 0), (name, part)

# %% tags=["nbval-check-output"]
for name, parts in sizes.items():
    print(f"{name!r:30s} {sum(parts.values()):12,d}")

# %%
fig, ax = plt.subplots(figsize=(11, 4))
plots.budget(sizes, ax)
plt.show()

# %%
def percent(model, *parts):
    """Share of some parts in all weights."""
    return f"{100 * sum(sizes[model][part] for part in parts) / sum(sizes[model].values()):.0f} %"


for name in ("lite", "Mini-Omni\n(released)"):
    print(f"{name.split()[0]:10s} embeddings {percent(name, 'text_embed', 'audio_embed')},",
          f"trunk {percent(name, 'trunk')},",
          f"all that hears and speaks {percent(name, 'asr_adapter', 'audio_embed', 'tts_adapter')}")

# %% [markdown]
# The numbers in the bars are millions. Two things to read:
#
# - At the paper's size the trunk and the text table rule, and hearing and speaking are a small addition: this is the
#   promise of the title, "any model can talk". A large vocabulary, however, is paid for at every step: the text head
#   multiplies with the whole table.
# - At `lite` size it is the other way round. We cut the trunk to a hundredth, but a voice does not get simpler
#   because the language model is small: seven streams of about a thousand codes each want their tables.

# %% [markdown]
# ### Exercise 2 (15 min, difficulty 2/5): count the trunk
#
# Write `my_count(width, mlp, layers, heads, kv_heads)`: the parameters of a Qwen2 trunk without any embeddings. Try
# it without looking at `count` above; the check tells you what you forgot.
#
# <details><summary>Hint 1</summary>
#
# A block: four matrices of attention, three of the MLP, biases of queries, keys and values, two norms of D weights.
# After the last block there is one more norm.
# </details>
# <details><summary>Hint 2</summary>
#
# With 4 heads but 2 *kv heads*, two heads of queries share one head of keys and values: these matrices have half the
# columns.
# </details>

# %%
my_count = None  # replace me
checks.trunk_parameters(my_count)

# %% [markdown]
# ## 4.5 How do two mouths speak from one head?
#
# The trunk gives one vector a step. The text mouth compares it with every row of the text table: the score of a word
# is the dot product with the word's own embedding. This is a **tied** head; it costs nothing, and ties what a word
# means when it is read to what must be thought to say it.
#
# The audio mouth first sends the vector through the TTS adapter, some more blocks that only the voice has, then
# through one matrix with seven times 1,088 outputs. In the released weights there is no such adapter, and the audio
# head is tied to the audio table.

# %%
with torch.no_grad():
    hidden = model.run(x)                                                   # (1, S, 256)
    text_logits = model.text_logits(hidden)
    voice = model.speak(hidden)                                             # three more blocks
    audio_logits = model.audio_head(voice)                                  # (1, S, 7, 1088)
    whole = model(one.text_in[None], one.audio_in[None], features)          # the library's one call
    tied = hidden @ model.text_embed.weight.T
    torch.testing.assert_close(text_logits, tied, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole[0], text_logits)
    torch.testing.assert_close(whole[1], audio_logits.transpose(1, 2))      # the contract has streams before steps

# %% tags=["nbval-check-output"]
print("trunk", tuple(hidden.shape)[2:], "text", tuple(text_logits.shape)[2:], "audio", tuple(audio_logits.shape)[2:])

# %% [markdown]
# How sure are the two mouths? **Entropy** measures it: 0 bits if one id has all the probability, 10 bits if 1,024 ids
# have the same. Guess first: which mouth is surer of what it says next?

# %%
answered = slice(T + 2, len(one))                       # the step that announces the answer has its first targets


def entropy(logits):
    """(..., V) -> bits"""
    p = logits.softmax(-1)
    return -(p * p.clamp(min=1e-12).log2()).sum(-1)


bits = torch.cat([entropy(text_logits)[0, None], entropy(audio_logits)[0].T])[:, answered]       # (8, steps)
learnt = torch.cat([one.text_target[None] >= 0, one.audio_target >= 0])[:, answered]
bits = torch.where(learnt, bits, torch.nan)            # only where there is something to say

fig, ax = plt.subplots(figsize=(11, 3.4))
image = ax.imshow(bits, vmin=0)
ax.set(yticks=range(8), yticklabels=["text", *[f"stream {q}" for q in range(7)]], xlabel="step of the answer")
fig.colorbar(image, label="bits")
plt.show()
means = np.nanmean(bits, axis=1)
print("mean bits:", " ".join(f"{name} {value:.2f}" for name, value in zip(("text", *"0123456"), means, strict=True)))
assert means[0] < means[1:].mean()

# %% [markdown]
# Dark is sure. The text mouth knows what it will say; the voice does not, and should not: there is one right spelling
# of a word but many right ways to sound it. Two consequences run through the rest of the course: text is taken by
# `argmax` and sound is *sampled* (notebook 07), and a loss that treats both alike will see large numbers from the
# voice that never go to zero.
#
# (The steps before a stream begins, and its end, are sure again: pads and the end mark are learnt easily.)

# %% [markdown]
# ## 4.6 Does a cache change what is said?
#
# To say step 30, a decoder needs what it thought at steps 0 to 29. It may compute all of it again, or keep the **keys
# and values** of every block. Naive first: read everything anew for every step.

# %%
def anew(model, x):
    """What the trunk says at every step, reading all steps before it again each time."""
    return torch.cat([model.run(x[:, : s + 1])[:, -1:] for s in range(x.shape[1])], dim=1)


def stepwise(model, x):
    """The same, each step read once."""
    cache = model.new_cache()
    return torch.cat([model.run(x[:, s : s + 1], cache) for s in range(x.shape[1])], dim=1)


with torch.no_grad():
    a, b, c = anew(model, x), stepwise(model, x), model.run(x)              # c: all at once, as in training
torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
torch.testing.assert_close(b, c, rtol=1e-3, atol=1e-3)

# %%
for S in (10, 100, 1000):
    print(f"{S:5d} steps: {S * (S + 1) // 2:7d} positions read anew, {S:4d} with a cache")

# %% [markdown]
# Three ways, one result. The third is why training is quick: a causal model's step never looks to its right, so *all*
# steps of a sentence are computed in one call, each from the true steps before it. Let us see the price of the first
# way grow.

# %%
def clock(work):
    """Milliseconds of one call, the best of three."""
    times = []
    for _ in range(3):
        began = perf_counter()
        work()
        times.append(1000 * (perf_counter() - began))
    return min(times)

# %%
lengths, again, cached = (16, 48, 96, 160, 256), [], []
with torch.inference_mode():
    for S in lengths:
        long = torch.randn(1, S, 256)
        cache = model.new_cache()
        model.run(long[:, :-1], cache)
        again.append(clock(lambda long=long: model.run(long)))
        cached.append(clock(lambda long=long, cache=cache: model.run(long[:, -1:], cache)))

fig, ax = plt.subplots(figsize=(9, 3.8))
ax.plot(lengths, again, "o-", label="all steps anew")
ax.plot(lengths, cached, "s-", label="one step, with a cache")
ax.axhline(2048 / 24, color=plots.GREY, ls="--", lw=1)
ax.text(lengths[0], 2048 / 24, "one frame of sound", va="bottom", color=plots.GREY)
ax.set(ylim=(0, None), xlabel="steps so far", ylabel="ms for the next step (trunk)")
ax.legend()
plt.show()

# %% [markdown]
# The dashed line is the time budget: a frame of sound lasts 85 ms, and whoever needs longer for a step falls behind.
# With a cache the next step costs the same however long the conversation is (for a small model and short
# conversations: the reading of keys grows, but slowly). Notebook 08 measures all of this with care.

# %% [markdown]
# ### Exercise 3 (10 min, difficulty 3/5): one step at a time, from memory
#
# Write `my_steps(model, x)` for `x` of `(1, S, D)`: what the trunk says at every step, `(1, S, D)`, where each call
# of `model.run` is given exactly one step. The check counts your calls.
#
# <details><summary>Hint</summary>
#
# `model.new_cache()` makes an empty cache, `model.run(step, cache)` extends it. One cache for all steps.
# </details>

# %%
my_steps = None  # replace me
checks.one_step_at_a_time(my_steps)

# %% [markdown]
# ## 4.7 Which parts does a task teach?
#
# Training follows gradients: a part learns from a batch only if the loss depends on it. Five tasks exist, by what is
# asked (A1 sound, T1 text) and what is answered (A2 sound and text, T2 text, T1 the transcript). Guess first, task by
# task: which of the five parts of the model does its loss reach? Fill in exercise 4 now, before you run on.

# %% [markdown]
# ### Exercise 4 (5 min, difficulty 2/5): where do gradients go?
#
# `my_parts` is a dictionary: for each of the keys `"A1A2"`, `"A1T2"`, `"A1T1"`, `"T1A2"`, `"T1T2"` a set out of
# `"asr_adapter"`, `"text_embed"`, `"audio_embed"`, `"trunk"`, `"tts_adapter"`.
#
# <details><summary>Hint</summary>
#
# Follow the arrows of the first picture backwards, from each mouth that has a target. And remember what a silent row
# is.
# </details>

# %%
my_parts = None  # replace me
checks.where_gradients_go(my_parts)

# %%
rows = read_rows([ROOT / "data" / "subset" / f"{name}.parquet" for name in ("dev_facts", "dev_phrasings")])


def batch_of(task, rows):
    """The same questions, laid out for a task."""
    clips, lengths = ears.features([r.question_wav for r in rows])
    laid = [example(VOCAB, task, question_text=None if task.hears else ids(r.question),
                    positions=model.asr_adapter.num_positions(int(length)) if task.hears else None,
                    answer_text=ids(r.question if task is Task.A1T1 else r.answer),
                    answer_codes=r.codes if task.speaks else None)
            for r, length in zip(rows, lengths, strict=True)]
    return Heard(collate(laid, VOCAB), clips if task.hears else None, lengths if task.hears else None)


def pull(model, heard, **how):
    """Backward through one batch; the norm of the gradient of every part, 0 where none arrives."""
    model.zero_grad(set_to_none=True)
    omni_loss(model, heard, **how)["loss"].backward()
    return {part: math.sqrt(sum(float(p.grad.square().sum()) for p in getattr(model, part).parameters()
                                if p.grad is not None)) for part in plots.PART_NAMES}


norms = {str(task): pull(model, batch_of(task, rows[:12])) for task in TASKS}

# %%
fig, ax = plt.subplots(figsize=(10, 4))
plots.gradient_grid(norms, ax)
plt.show()

for task in TASKS:
    assert (norms[task]["asr_adapter"] > 0) == task.hears and (norms[task]["tts_adapter"] > 0) == task.speaks
    assert all(norms[task][part] > 0 for part in ("text_embed", "audio_embed", "trunk"))

# %% [markdown]
# Each number is the length of the gradient that one batch sends into a part; hatched fields get none at all. So the
# ears can only be taught by tasks that hear, and the voice by tasks that speak. Text alone (T1T2) reaches neither.
# This table is the reason for the order of the phases in notebooks 05 to 07.
#
# One column surprises many: `audio_embed` is reached by *every* task, even by pure text. The seven silent rows are
# there at every step. If phase 1 moved the embedding of that silence while the trunk is frozen, it would change what
# the model makes of plain text. The library therefore holds it still (`train.hold_silence`). Let us see which rows of
# the audio table a task touches:

# %%
def touched(task):
    """Rows of the audio table with a gradient: how many codes, how many marks (pads, ends, announcements)."""
    pull(model, batch_of(task, rows[:12]))
    some = model.audio_embed.weight.grad.view(7, VOCAB.audio_size, -1).abs().sum(-1) > 0        # (7, 1088)
    return int(some[:, : VOCAB.codebook].sum()), int(some[:, VOCAB.codebook :].sum())


for task in TASKS:
    codes, marks = touched(task)
    print(f"{task}: {codes:4d} codes, {marks:2d} marks")
    assert (codes > 0) == task.speaks and marks >= 7

# %% [markdown]
# ## 4.8 Do the two mouths pull in the same direction?
#
# A spoken answer has two losses, one for the words and one for the codes. Both send a gradient into the same trunk.
# The **cosine** of the two tells whether a step for one also helps the other: 1 the same direction, 0 they ignore
# each other, below 0 they quarrel. Guess first: in the first block, and in the last?

# %%
def trunk_gradient(heard, mouth):
    """One vector a block of the trunk."""
    pull(model, heard, rows=(mouth,))
    return [torch.cat([p.grad.flatten() for p in layer.parameters()]) for layer in model.trunk.layers]


def cosines(a, b):
    """Block by block."""
    return [float(F.cosine_similarity(one, other, dim=0)) for one, other in zip(a, b, strict=True)]


first, other = batch_of(Task.A1A2, rows[:20]), batch_of(Task.A1A2, rows[20:])       # forty different questions
words, sounds = trunk_gradient(first, "text"), trunk_gradient(first, "audio")
compared = {"words and sounds, same batch": cosines(words, sounds),
            "words of two batches": cosines(words, trunk_gradient(other, "text")),
            "sounds of two batches": cosines(sounds, trunk_gradient(other, "audio"))}
model.zero_grad(set_to_none=True)

# %%
fig, ax = plt.subplots(figsize=(10, 3.8))
hues = (plots.PART_COLORS["trunk"], plots.RED, plots.BLUE)
for shift, (name, values), hue in zip((-0.27, 0, 0.27), compared.items(), hues, strict=True):
    ax.bar(np.arange(len(values)) + shift, values, width=0.25, color=hue, label=f"{name}: {np.mean(values):+.2f}")
ax.axhline(0, color=plots.BLACK, lw=1)
ax.set(xticks=range(len(words)), xlabel="block of the trunk", ylabel="cosine of two gradients")
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=11)
plt.show()

# %% [markdown]
# The last two colours give the scale: so much do two batches agree about the *same* mouth (their means stand in the
# legend). A batch of twenty questions is a noisy opinion, so do not expect 1; and of a model that has learnt its
# lesson, hardly anything is left that all batches agree on. Against that, read the first colour on your machine: near
# zero, the two mouths teach the trunk different things, and neither is harmed; clearly negative, each step for the
# voice costs some of the words. That is the question behind notebook 06 (how much text must stay in the mixture?) and
# behind the ablation of notebook 07. And it is what the TTS adapter is for: blocks in which the voice can do as it
# likes.

# %% [markdown]
# ## What to try next
#
# - Take the marks out of the mean: set `model.audio_embed.weight` of all `pad_a` rows to zero, and ask a question in
#   text (`Assistant(...).answer("What is your name?", "T1T2")`). Does it survive?
# - `count` says what 6 TTS blocks cost at the paper's size. What would 24 kHz SNAC with *one* codebook of 4,096 save?
# - Section 4.8 for `load_model(CHECKPOINTS / "lite", "phase2")`, which has not yet learnt to speak: do the mouths
#   quarrel more?
# - On to **05**, where two parts of this model are trained while the rest holds still.
