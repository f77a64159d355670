# %% [markdown]
# # 03 · Eight rows: why are the streams delayed?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/03_eight_rows.ipynb)
#
# A language model says one token a step. Speech wants seven at a time, and they must fit together. This notebook is about the one
# idea that makes the rest possible. At the end you will be able to
#
# - draw the three ways to lay seven streams out in time, and say what each token knows of the others;
# - count why flattening costs seven times the steps, and show with models that you trained that saying all seven at once fails;
# - delay and undelay streams with your own code, and shift them into the ids of the released Mini-Omni;
# - read the eight rows of all five tasks like a score.
#
# - **Needs** only committed files: the codec, the tokenizer and the subset of the data. No other notebook.
# - **Takes** TIME, more than half of it real training; 30 to 40 minutes to read.

# %%
import sys

if "google.colab" in sys.modules:                     # on Colab: fetch the project first
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "./omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
from time import perf_counter

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, display
from torch import nn

from omni_lite import checks, plots
from omni_lite.assistant import CHECKPOINTS, ROOT, fill
from omni_lite.codec import build_codec
from omni_lite.config import LITE
from omni_lite.data import load_tokenizer, read_rows
from omni_lite.streams import Task, answer, delay_streams, example, prompt, shift_audio, undelay_streams, unshift_audio
from omni_lite.vocab import CODEC_RATE, FRAME_ORDER, FRAME_SECONDS, FRAMES_PER_SECOND, NUM_STREAMS, Vocab
from omni_lite.widgets import player

plots.use_style()

# %% [markdown]
# ## 3.1 Seven tokens want to be said. In which order?
#
# The codec (notebook 02) writes 85.3 ms of sound as a **frame** of seven tokens: one coarse, two middle, four fine. Call them `a`
# to `g`; `a0 b0 c0 ... g0` is the first frame, `a1 ... g1` the second. A **layout** says at which step each of them is said. Three
# are worth thinking about:

# %%
LAYOUTS = {                                           # stream q of frame t is said at step ...
    "no delay": lambda q, t: t + 1,
    "delayed": lambda q, t: t + q + 1,
    "flattened": lambda q, t: 7 * t + q + 1,
}
PAD = 1024                                            # the first id that is no entry of a codebook: says nothing


def lay(codes, step_of, pad=PAD):
    """Put tokens (7, T) where a layout wants them: (7, S); all else is silent. Step 0 is for the text alone."""
    Q, T = codes.shape
    rows = torch.full((Q, step_of(Q - 1, T - 1) + 1), pad)
    for q in range(Q):
        for t in range(T):
            rows[q, step_of(q, t)] = codes[q, t]
    return rows

# %% [markdown]
# **Guess first.** How many steps do three frames take in each layout?

# %%
def letters(rows):
    """Number 7 * t + q -> stream letter and frame number."""
    return [["" if v == PAD else f"{'abcdefg'[v % 7]}{v // 7}" for v in row] for row in rows.tolist()]


frames = torch.arange(21).view(3, 7).T                # (7, 3): token q of frame t is the number 7 t + q
fig, axes = plt.subplots(3, 1, figsize=(9, 7.6))
for ax, (name, step_of) in zip(axes, LAYOUTS.items(), strict=True):
    rows = lay(frames, step_of)
    plots.token_grid(letters(rows), silent=("",), marked=[(q, step_of(q, 1)) for q in range(7)], ax=ax)
    ax.set_xlim(0, 22)
    ax.set_title(name, loc="left")
plt.show()

# %% [markdown]
# The black frames hold the seven tokens of frame 1.
#
# - **No delay**: all seven in one step. The fewest steps there can be.
# - **Flattened**: one after the other, as if they were words. Seven times the steps.
# - **Delayed**: stream `q` starts `q + 1` steps late (the first step belongs to the text). One frame lies on a diagonal. After
#   the start it costs as many steps as no delay: at every step all seven streams say something, but of seven different frames.
#
# The delayed layout is Mini-Omni's (it comes from MusicGen). The library's function is the same as our naive one:

# %% tags=["nbval-check-output"]
codes = torch.randint(0, 1024, (7, 5), generator=torch.Generator().manual_seed(0))
delayed = lay(codes, LAYOUTS["delayed"])
assert torch.equal(delayed, delay_streams(codes, PAD))
assert torch.equal(undelay_streams(delayed), codes)   # and back
print({name: tuple(lay(codes, step_of).shape) for name, step_of in LAYOUTS.items()})

# %% [markdown]
# ## 3.2 What does each token know?
#
# In one step the model says its tokens **at the same time**: none of them can look at the others. What it can look at is every
# step before.
#
# **Guess first.** In the delayed layout, when token `g` of a frame is said, which other tokens of that frame are known? And when
# `a` is said, how much is known about the frame before it?

# %%
def known(step_of, t=20):
    """(7, 7): when stream q of frame t is said, the newest frame of stream j that was said before, minus t."""
    return np.array([[max(f for f in range(60) if step_of(j, f) < step_of(q, t)) - t for j in range(7)]
                     for q in range(7)])


fig, axes = plt.subplots(1, 3, figsize=(13, 4.8), sharey=True)
for ax, (name, step_of) in zip(axes, LAYOUTS.items(), strict=True):
    table = known(step_of)
    ax.imshow(table >= 0, cmap="Blues", vmin=0, vmax=2)
    for (q, j), newest in np.ndenumerate(table):
        ax.text(j, q, f"{newest:+d}" if newest else "0", ha="center", va="center")
    ax.set(title=name, xlabel="newest frame known of stream", xticks=range(7), yticks=range(7))
    ax.set_xticklabels("abcdefg")
    ax.set_yticklabels("abcdefg")
axes[0].set_ylabel("when this stream is said")
plt.show()
assert (known(LAYOUTS["no delay"]) == -1).all()
assert (known(LAYOUTS["delayed"])[np.tril_indices(7, -1)] >= 0).all() and known(LAYOUTS["delayed"])[0, 6] == -7

# %% [markdown]
# Blue: the token of this very frame (0) or even of a later one (+) is known already. White: only older frames are (-1 is the frame
# before).
#
# - Without delay nothing of the same frame is ever known. The seven are drawn blindfold, each by itself.
# - Flattened, everything below the diagonal is known, and the whole frame before. This is what one would wish for.
# - Delayed, everything below the diagonal is known too. The price stands above the diagonal: when `a` is said, the last `g`
#   it knows is seven frames old. **The delay trades old details for new companions.** Whether that is a good trade, we measure in
#   3.5.

# %% [markdown]
# ## 3.3 Why not simply flatten?
#
# Because somebody is waiting. A frame lasts 85.3 ms, and in this time a talking model has to finish the next one.

# %%
SECONDS = 5
T = int(SECONDS * FRAMES_PER_SECOND) + 1
needed = {name: step_of(6, T - 1) + 1 for name, step_of in LAYOUTS.items()}
first = {name: step_of(6, 0) + 1 for name, step_of in LAYOUTS.items()}
for name in LAYOUTS:
    print(f"{name:10s} {needed[name]:4d} steps for {T} frames ({SECONDS} s), {first[name]} until the first is complete")
assert needed["delayed"] - needed["no delay"] == 6 and needed["flattened"] > 6 * needed["delayed"]

# %% [markdown]
# How long does a step take? Measure it with a model of the `lite` size (random weights will do, they take as long as trained ones).
# A flattened model would have one head instead of seven, but it is the trunk that takes the time.

# %%
from omni_lite.generate import decode_step, prefill
from omni_lite.model import OmniModel

torch.manual_seed(0)
model = OmniModel(LITE).eval()
with torch.inference_mode():
    cache, _ = prefill(model, prompt(LITE.vocab, Task.T1A2, text=[5, 6, 7]), speaks=True)
    for i in range(40):
        if i == 10:                                   # the first steps are slower than the rest
            began = perf_counter()
        decode_step(model, cache, text_id=5, audio_ids=[1, 2, 3, 4, 5, 6, 7])
step_ms = 1000 * (perf_counter() - began) / 30
load = {name: needed[name] * step_ms / (SECONDS * 1000) for name in LAYOUTS}
fig, ax = plt.subplots(figsize=(10, 2.8))
bars = ax.barh(list(load), [100 * value for value in load.values()], color=(plots.SKY, plots.GREEN, plots.RED))
ax.bar_label(bars, fmt=" %.0f %%")
ax.axvline(100, color="black", ls="--")
ax.set(xlabel=f"time to make speech, % of the time to play it (a step of {step_ms:.1f} ms)")
ax.set_xlim(0, 1.15 * max(100, 100 * max(load.values())))
ax.invert_yaxis()
plt.show()

# %% [markdown]
# Right of the dashed line the listener has to wait in the middle of a word. A small model on a quick machine may afford even the
# flattened layout. But the paper's model is many times larger, and then a factor of seven decides whether one can talk with it.
#
# There is a second cost, which no faster machine removes: the length of what the model has to keep in mind. Five seconds of speech
# are as long as a few sentences when delayed, and as long as a page when flattened.
#
# ### Exercise 3.1: count the steps (difficulty 2/5, 5 minutes)
#
# Write a function of `frames` that gives three numbers: the steps until the last frame is complete without delay, delayed, and
# flattened. Step 0 is the text's alone, as above.
#
# <details><summary>Hint 1</summary>The last thing said is stream 6 of frame T - 1. At which step? How many steps are there up to
# it, step 0 included?</details>
# <details><summary>Hint 2</summary>The first of the three is <code>frames + 1</code>.</details>

# %%
my_steps = None                                       # replace me: a function of `frames`
checks.steps_of(my_steps)

# %% [markdown]
# ## 3.4 Why not say all seven at once? A thought experiment with coins
#
# Imagine a language with two sounds only, *ah* and *oh*. In *ah* all seven tokens are 0, in *oh* all are 1. Both are equally likely.
# Two models have learnt this language perfectly. One says its seven tokens at once, the other one after the other.
#
# **Guess first.** What share of the first model's frames is a sound of the language?

# %%
dice = torch.Generator().manual_seed(0)
at_once = torch.randint(0, 2, (10_000, 7), generator=dice)             # each stream knows: 0 or 1, half and half
in_turn = torch.randint(0, 2, (10_000, 1), generator=dice).expand(-1, 7)      # the first draws, the others have seen it
for name, said in (("at once", at_once), ("in turn", in_turn)):
    whole = (said == said[:, :1]).all(dim=1).float().mean()
    print(f"{name}: {100 * whole:5.1f} % of the frames are a sound of the language")
print(f"in theory: {100 * 2 / 2**7:.1f} % and 100.0 %")
assert (at_once == at_once[:, :1]).all(dim=1).float().mean() < 0.05

# %% [markdown]
# The first model is not badly trained. Each of its seven predictions is as good as it can be, and its loss cannot become any
# smaller. It fails because seven *right shares* drawn independently are no *right frame*. That is the whole argument for the
# delay. But real frames are not all-or-nothing. How much do real tokens depend on each other?

# %% [markdown]
# ## 3.5 Three small models, a little training
#
# Now for real: three language models of the same size, which learn to babble in the answering voice, from the tokens of the
# committed answers. They read no text and say no words: only sound after sound. All three get the same number of training steps,
# and in each step about the same number of positions to compute, so training costs them the same. Only the layout differs.

# %%
codec = build_codec(LITE.codec)
fill(codec, CHECKPOINTS / "lite" / "codec.safetensors")
rows = read_rows([ROOT / "data" / "subset" / "train.parquet"], sound=False)
sentences = list({row.answer: row.codes for row in rows}.values())     # each answer once: (7, T)
cut = int(0.9 * len(sentences))
train, held_out = sentences[:cut], sentences[cut:]
mean_frames = sum(one.shape[1] for one in train) / cut
# The codec's own entries, 8 numbers each, one table a stream
entries = torch.stack([quantizer.codebook.weight.detach() for quantizer in codec.quantizer.quantizers])
entries = (entries - entries.mean(1, keepdim=True)) / entries.std(1, keepdim=True)     # (3 levels, 1024, 8)
entries = entries[[level for level, _ in FRAME_ORDER]]                                 # (7 streams, 1024, 8)
padded = F.pad(entries, (0, 0, 0, 1))                                                  # id 1024, silence, is all zeros
seen = torch.cat(train, dim=1)
often = torch.stack([torch.bincount(seen[q], minlength=1024) + 1.0 for q in range(7)])
log_share = (often / often.sum(1, keepdim=True)).log()                                 # (7, 1024)
print(f"{len(train)} answers to learn from, {len(held_out)} held out, {mean_frames:.0f} frames each on average")

# %% [markdown]
# The model: a two-layer Qwen2, the same kind of trunk as the big one. To learn something in so short a time it gets a head start: it
# reads and writes tokens as the codec's own 8-number entries instead of learning an embedding for each (which is what the real
# model does). All three get it.

# %%
from transformers import Qwen2Config, Qwen2Model


class TinyVoice(nn.Module):
    """Seven rows of tokens in, seven predictions for the next step out."""

    def __init__(self, width=128):
        super().__init__()
        self.trunk = Qwen2Model(Qwen2Config(vocab_size=1, pad_token_id=None, hidden_size=width, num_hidden_layers=2,
                                            intermediate_size=2 * width, num_attention_heads=4, num_key_value_heads=4))
        self.trunk.set_input_embeddings(nn.Identity())
        self.into, self.out = nn.Linear(7 * 8, width), nn.Linear(width, 7 * 8)
        self.bias = nn.Parameter(log_share.clone())

    def forward(self, rows, cache=None):
        """(B, 7, S) ids -> (B, S, 7, 8): what each stream wants to say next, as the codec writes it."""
        x = torch.stack([padded[q][rows[:, q]] for q in range(7)], dim=2).flatten(2)               # (B, S, 56)
        hidden = self.trunk(inputs_embeds=self.into(x), past_key_values=cache, use_cache=cache is not None)
        return self.out(hidden.last_hidden_state).unflatten(-1, (7, 8))

    def logits(self, wanted, q):
        """(..., 8) -> (..., 1024): the more an entry points that way, the likelier; rare ones less so."""
        return wanted @ entries[q].T + self.bias[q]

# %%
def pack(some, step_of):
    """Sentences as one batch, filled up with silence: (B, 7, S)"""
    laid = [lay_fast(codes, step_of) for codes in some]
    S = max(rows.shape[1] for rows in laid)
    return torch.stack([F.pad(rows, (0, S - rows.shape[1]), value=PAD) for rows in laid])


def lay_fast(codes, step_of):
    """`lay` without the inner loop."""
    Q, T = codes.shape
    rows = torch.full((Q, step_of(Q - 1, T - 1) + 1), PAD)
    for q in range(Q):
        rows[q, [step_of(q, t) for t in range(T)]] = codes[q]
    return rows


def loss_by_stream(model, rows):
    """Cross-entropy of each stream's next token, in nats: (7,). Silence is not asked for."""
    wanted, targets = model(rows[..., :-1]), rows[..., 1:]
    asked = [targets[:, q] != PAD for q in range(7)]
    return torch.stack([F.cross_entropy(model.logits(wanted[:, :, q][asked[q]], q), targets[:, q][asked[q]])
                        for q in range(7)])

# %%
from omni_lite.train import cosine

STEPS, POSITIONS = 200, 1250


def train_voice(name):
    """200 steps of about 1250 positions each, whatever the layout."""
    step_of = LAYOUTS[name]
    batch = max(1, round(POSITIONS / (step_of(6, int(mean_frames)) + 1)))
    torch.manual_seed(0)
    model = TinyVoice()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    history, began = [], perf_counter()
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = cosine(step, STEPS, peak=3e-3, end=0.0, warmup=20)
        loss = loss_by_stream(model, pack([train[i] for i in torch.randperm(len(train))[:batch]], step_of))
        optimizer.zero_grad()
        loss.mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(float(loss.detach().sum()))
        if (step + 1) % 100 == 0:
            print(f"{name:10s} step {step + 1}  {np.mean(history[-20:]):.1f} nats a frame  "
                  f"{perf_counter() - began:3.0f} s  ({batch} answers a step)")
    return model.eval(), history

# %%
voices, histories = {}, {}
for name in LAYOUTS:
    voices[name], histories[name] = train_voice(name)

# %% [markdown]
# Judge them on answers that none of them has seen. The loss of a frame is the sum over its seven tokens: how surprised the model is
# by what was really said.

# %%
with torch.no_grad():
    losses = {name: loss_by_stream(voices[name], pack(held_out, step_of)).numpy() for name, step_of in LAYOUTS.items()}
unseen = torch.cat(held_out, dim=1)
by_share = [float(-log_share[q][unseen[q]].mean()) for q in range(7)]                  # of who knows frequencies only
colors = {"no delay": plots.SKY, "delayed": plots.GREEN, "flattened": plots.RED}
fig, axes = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(1, 1.7))
for name in LAYOUTS:
    axes[0].plot(plots.running_mean(histories[name], 20), color=colors[name], label=name)
axes[0].set(xlabel="training step", ylabel="nats a frame", title="training")
axes[0].legend()
for name in LAYOUTS:
    axes[1].plot(losses[name], "o-", color=colors[name])
axes[1].plot(by_share, "--", color="black", label="knows only frequencies")
axes[1].set_xticks(range(7), [f"stream {q}\n({'abcdefg'[q]})" for q in range(7)])
axes[1].set(ylabel="nats a token", title="held-out answers")
axes[1].legend()
plt.show()

# %%
for name in LAYOUTS:
    print(f"{name:10s} {losses[name].sum():5.1f} nats a frame; streams d to g {losses[name][3:].mean():.2f} each")
wins = [q for q in range(7) if losses["no delay"][q] < losses["delayed"][q]]
print("no delay is better than delayed on:", ", ".join("abcdefg"[q] for q in wins) or "no stream")
assert losses["delayed"][3:].mean() < losses["no delay"][3:].mean() - 0.2
assert losses["delayed"].sum() < losses["no delay"].sum()

# %% [markdown]
# Read the right picture from left to right.
#
# - On the first streams the model without delay may even be ahead: it knows the whole frame before, to the last detail, and the
#   delayed one does not (see 3.2). That is the price.
# - From stream `d` on the picture turns. These tokens stand for the later parts of the frame, and their level depends on what the
#   others took. Who sees the companions guesses much better.
# - In the sum the delay wins. The flattened model sees everything, and for each second of speech it had to compute seven times as
#   many positions: at equal cost it read a seventh of the speech. It need not be the worse model for that. It is the one that
#   cannot talk in time.
#
# But the loss hides the real damage. A model without delay can have a decent loss on each stream, like the coins, and still say
# frames that do not fit together. So let them speak.

# %% [markdown]
# ## 3.6 Do the seven fit together?
#
# Each model now talks freely: every token is drawn from its own predictions and fed back.

# %%
from transformers.cache_utils import DynamicCache

from omni_lite.generate import sample


@torch.no_grad()
def babble(name, batch=32, T=36, seed=0):
    """Let a model talk: (batch, 7, T)"""
    step_of, model, dice = LAYOUTS[name], voices[name], torch.Generator().manual_seed(seed)
    rows = lay_fast(torch.zeros(7, T, dtype=torch.long), step_of)[None].repeat(batch, 1, 1)
    cache = DynamicCache()
    for s in range(1, rows.shape[-1]):
        wanted = model(rows[..., s - 1 : s], cache)[:, 0]                                          # (batch, 7, 8)
        for q in range(7):
            if rows[0, q, s] != PAD:                                                               # its turn
                rows[:, q, s] = sample(model.logits(wanted[:, q], q), temperature=1.0, generator=dice)
    return torch.stack([rows[:, q, [step_of(q, t) for t in range(T)]] for q in range(7)], dim=1)


spoken = {name: babble(name) for name in LAYOUTS}
print({name: tuple(codes.shape) for name, codes in spoken.items()})

# %% [markdown]
# How to measure "fits together"? In real frames the entry of stream `g` can be guessed in part from those of `a` to `f`. We fit the
# simplest guesser, a linear map, on **real** frames, and then ask how much of the entry it explains: in real frames that it has not
# seen, and in the frames that our three models said. 1 is all of it, 0 none; below 0 the guess does harm.

# %%
def companions(codes, q):
    """(7, N) -> what streams 0..q-1 say, as numbers: (N, 8 q + 1)"""
    return torch.cat([*[entries[j][codes[j]] for j in range(q)], torch.ones(codes.shape[1], 1)], dim=1)


guessers = []                                         # least squares, slightly damped
for q in range(1, 7):
    X, y = companions(seen, q), entries[q][seen[q]]
    guessers.append(torch.linalg.solve(X.T @ X + 50 * torch.eye(X.shape[1]), X.T @ y))


def explained(codes):
    """Share of each stream's variation that its companions explain, streams 1 to 6."""
    shares = []
    for q, guesser in enumerate(guessers, start=1):
        y = entries[q][codes[q]]
        error = (y - companions(codes, q) @ guesser).pow(2).sum()
        shares.append(float(1 - error / (y - y.mean(0)).pow(2).sum()))
    return np.array(shares)


fit = {"real speech": explained(unseen)} | {name: explained(codes.transpose(0, 1).flatten(1))
                                            for name, codes in spoken.items()}
for name, shares in fit.items():
    print(f"{name:12s} {shares[1:].mean():.2f} on average over streams c to g")

# %%
fig, ax = plt.subplots(figsize=(11, 4))
for i, (name, shares) in enumerate(fit.items()):
    ax.bar(np.arange(6) + 0.2 * (i - 1.5), shares, 0.19, color=colors.get(name, "black"), label=name)
ax.axhline(0, color="black", lw=0.8)
ax.set_xticks(range(6), [f"stream {q} ({'abcdefg'[q]})" for q in range(1, 7)])
ax.set(ylabel="explained by its companions", ylim=(min(0, min(map(min, fit.values()))), 0.95))
ax.legend(ncols=4, loc="upper center")
plt.show()
assert fit["delayed"][1:].mean() > fit["no delay"][1:].mean() + 0.05
assert fit["real speech"][1:].mean() > fit["no delay"][1:].mean() + 0.05

# %% [markdown]
# Black is what real speech is like. The delayed model comes near it. The model without delay loses a good part of it, the more the
# further down the frame: its later tokens belong to frames that its earlier ones did not choose. It is not lost altogether, for a
# reason that you can find in 3.2: all seven have the same past, and the past decides much.
#
# And how does it sound? None of them says words (they never read any). Listen for whether it is *one* voice.

# %%
sounds = {name: codec.decode(spoken[name][:1])[0, 0].numpy() for name in ("no delay", "delayed")}
fig, axes = plt.subplots(2, 1, figsize=(10, 4.4), sharex=True)
for ax, (name, wav) in zip(axes, sounds.items(), strict=True):
    mel = codec.encoder.log_mel(torch.from_numpy(wav)[None, None])[0].T                # (100 bands, columns)
    ax.imshow(mel, origin="lower", extent=(0, len(wav) / CODEC_RATE, 0, 100), vmin=-8, vmax=1)
    ax.set(title=name, yticks=[])
axes[1].set_xlabel("seconds")
plt.show()
display(HTML("".join(f"<p>{name} {player(wav, CODEC_RATE)}</p>" for name, wav in sounds.items())))

# %% [markdown]
# ## 3.7 The eighth row, and the way back
#
# Above the seven streams runs the text, one step ahead of stream 0. That is the *thinking* in "talk while thinking": the model
# knows which word comes next before it pronounces the first sound of it, and usually many words before. Here is a real answer from
# the subset as the model learns to say it. After its text it says `<eot>` (end of text), after its sound each stream says `<eoa>`
# (end of audio).

# %%
vocab, tokenizer = LITE.vocab, load_tokenizer(CHECKPOINTS / "lite")
shortest = min((row for row in rows if len(row.answer.split()) > 2), key=lambda row: row.codes.shape[1])
ids = tokenizer.encode(shortest.answer).ids
laid = answer(vocab, ids, shortest.codes)             # the library's: text (S,), audio (7, S)


def readable(text_row):
    """Token ids as words; marks by their names."""
    marks = {vocab.eot: "<eot>", vocab.pad_t: "", vocab.input_t: "<in>", vocab.answer_t: "<ans>", vocab.asr: "<asr>"}
    return [marks[i] if i in marks else tokenizer.decode([i]).strip() for i in text_row.tolist()]


MARKS = {vocab.eoa: "<eoa>", vocab.input_a: "<in>", vocab.answer_a: "<ans>"}
MARKS |= {mark: mark for mark in ("<eot>", "<in>", "<ans>", "<asr>", "ear")}
SILENT = (vocab.pad_a, "")
plt.figure(figsize=(11, 3.9))
plots.token_grid(laid.audio[:, :22], readable(laid.text[:22]), silent=SILENT, names=MARKS)
plt.title(f'"{shortest.answer}", {shortest.codes.shape[1]} frames')
plt.show()
for q in range(7):                                    # stream q: q + 1 times silence, its codes, the end
    T = shortest.codes.shape[1]
    assert (laid.audio[q, : q + 1] == vocab.pad_a).all() and laid.audio[q, q + 1 + T] == vocab.eoa
    assert torch.equal(laid.audio[q, q + 1 : q + 1 + T], shortest.codes[q])

# %% [markdown]
# Move along it step by step (with a running kernel). What has not been said yet is blank; a dot is a silence that *was* said. As soon
# as stream 6 has spoken, a frame is complete and goes to the codec.

# %%
def show_step(step, ax=None):
    """The rows as they are known after this step; the frame that it completes in black."""
    frame = step - 7                                  # step s completes frame s - 7
    done = 0 <= frame < shortest.codes.shape[1]
    marked = [(q, frame + q + 1) for q in range(7)] if done else []
    ax = ax or plt.subplots(figsize=(12, 4.2))[1]
    plots.token_grid(laid.audio[:, :18], readable(laid.text[:18]), silent=SILENT, names=MARKS, upto=step + 1,
                     marked=marked, ax=ax)
    ready_ms = 1000 * (frame + 1) * FRAME_SECONDS
    news = f"frame {frame} is complete, {ready_ms:.0f} ms of sound" if done else "no frame yet"
    ax.set_title(f"step {step}: {news}", loc="left")


def show_step_live(step):
    show_step(step)
    plt.show()


_ = ipywidgets.interact(show_step_live, step=ipywidgets.IntSlider(8, 0, 17))

# %%
fig, axes = plt.subplots(2, 1, figsize=(9, 5.6))      # the same as a picture: two moments
for ax, step in zip(axes, (6, 9), strict=True):
    show_step(step, ax)
plt.show()

# %% [markdown]
# At step 0 only the first word was there. At step 6 six streams have begun, and still nothing can be heard. Step 7 completes frame 0,
# and from then on each step completes one. (The codec itself looks one frame ahead, so the first sound that can be played leaves
# one step later: notebook 08.)
#
# ### Exercise 3.2: undelay (difficulty 3/5, 12 minutes)
#
# Line the streams up into frames again: `delayed` of shape `(7, S)` in, `(7, S - 7)` out.
#
# <details><summary>Hint 1</summary>How many whole frames are in S steps? Look at the last column of the first picture.</details>
# <details><summary>Hint 2</summary>Stream q begins at step q + 1 and is T = S - 7 long.</details>
# <details><summary>Hint 3</summary><code>torch.stack</code> of seven slices.</details>

# %%
my_undelay = None                                     # replace me: a function of `delayed`
checks.undelay(my_undelay)

# %% [markdown]
# ## 3.8 One table for all: the layer shift
#
# Token 17 of stream 0 is another sound than token 17 of stream 5: they come from other levels, or stand for another part of the
# frame. A model with *one* big table of embeddings needs different ids for them. So each stream gets a band of its own, after the
# ids of the text: id `x` of stream `q` becomes `x + text_size + q * audio_size`. The released model calls this the **layer shift**.

# %%
OFFICIAL = Vocab(text_base=151_936, codebook=4096)    # Qwen2's padded vocabulary, SNAC's codebooks


def naive_shift(vocab, audio):
    """(7, S) -> (7, S), one id at a time"""
    rows = [[x + vocab.text_size + q * vocab.audio_size for x in row] for q, row in enumerate(audio.tolist())]
    return torch.tensor(rows)


for vocabulary in (OFFICIAL, LITE.vocab):
    some = torch.randint(0, vocabulary.audio_size, (7, 9), generator=dice)
    assert torch.equal(naive_shift(vocabulary, some), shift_audio(vocabulary, some))
    assert torch.equal(unshift_audio(vocabulary, shift_audio(vocabulary, some)), some)

# %% [markdown]
# With the sizes of the paper these must be the very ids of the released checkpoint, or its weights would be read as nonsense. They
# are, every one:

# %% tags=["nbval-check-output"]
v = OFFICIAL
text_marks = dict(eot=v.eot, pad_t=v.pad_t, input_t=v.input_t, answer_t=v.answer_t, asr=v.asr)
audio_marks = dict(eoa=v.eoa, pad_a=v.pad_a, input_a=v.input_a, answer_a=v.answer_a, split=v.split_a)
print("text row: ", text_marks)
print("each audio row, before the shift:", audio_marks)
print("text ids:", v.text_size, "  ids of a stream:", v.audio_size, "  rows of the table:", v.total_size)
print("pad_a of the seven streams, shifted:", [v.shift(v.pad_a, q) for q in range(NUM_STREAMS)])
assert list(text_marks.values()) == [151_936, 151_937, 151_938, 151_939, 151_940]
assert list(audio_marks.values()) == [4096, 4097, 4098, 4099, 4100] and v.total_size == 181_120

# %%
fig, axes = plt.subplots(2, 1, figsize=(12, 3.6))
for ax, vocabulary, name in zip(axes, (OFFICIAL, LITE.vocab), ("Mini-Omni", "lite"), strict=True):
    bands = [("text", vocabulary.text_size, plots.TEXT_COLOR)]
    bands += [(f"{q}", vocabulary.audio_size, plots.STREAM_COLORS[q]) for q in range(7)]
    at = 0
    for label, width, color in bands:
        ax.barh(0, width, left=at, color=color, edgecolor="white")
        ax.text(at + width / 2, 0, label, ha="center", va="center",
                color="black" if color == plots.SKY else "white")
        at += width
    ax.set(title=f"{name}: {vocabulary.total_size:,} ids", yticks=[], xlim=(0, at))
    ax.spines["left"].set_visible(False)
plt.show()

# %% [markdown]
# In the paper's model nearly all of the table is text, in ours most of it is audio: a small model for a small world needs few words,
# but a sound takes as many tokens as it takes. Inside this project the shift is done by the model itself; everything before it
# uses the ids of each stream, `0 ... audio_size - 1`, which are easier to read.
#
# ### Exercise 3.3: layer shift (difficulty 1/5, 5 minutes)
#
# Without loops: `audio` of shape `(7, S)`, `text_size` and `audio_size` in, shifted ids out.
#
# <details><summary>Hint</summary><code>torch.arange(7)[:, None]</code> is a column that is added to every step.</details>

# %%
my_shift = None                                       # replace me: a function of `audio`, `text_size` and `audio_size`
checks.layer_shift(my_shift)

# %% [markdown]
# ## 3.9 Five tasks on the same eight rows
#
# One model does five things, and nothing but the rows tells it which: **A1** or **T1** says whether the question is heard or read,
# **A2**, **T2** or **T1** at the end, whether it shall answer aloud, answer in writing, or write down what it heard.

# %%
SAID, FINE = tokenizer.encode("How are you?").ids, tokenizer.encode("I like you too.").ids
TINY = torch.randint(0, vocab.codebook, (7, 2), generator=dice)        # two frames stand for a spoken answer


def score(task):
    """Prompt and answer of a task as cells: audio (7, S) and text (S,), and where the answer begins."""
    heard = dict(positions=4) if task.hears else dict(text=SAID)
    question = prompt(vocab, task, **heard)
    reply = answer(vocab, SAID if task is Task.A1T1 else FINE, TINY if task.speaks else None)
    audio = torch.cat([question.audio, reply.audio], dim=1).tolist()
    if task.hears:
        for row in audio:
            row[1:5] = ["ear"] * 4                    # here the adapter puts in what was heard
    return audio, readable(torch.cat([question.text, reply.text])), len(question)

# %%
fig, axes = plt.subplots(5, 1, figsize=(10.5, 10), height_ratios=[8 if task.speaks else 2 for task in Task])
longest = max(len(score(task)[1]) for task in Task)
for ax, task in zip(axes, Task, strict=True):
    audio, text, begins = score(task)
    plots.token_grid(audio if task.speaks else audio[:1], text, silent=SILENT, names=MARKS, ax=ax)
    ax.axvline(begins, color="black", lw=2.5)
    ax.set(xlabel="", xlim=(0, longest))
    ax.set_title(f"{task}" if task.speaks else f"{task} (the other streams are like stream 0)", loc="left")
plt.show()

# %% [markdown]
# Left of the black line is the **prompt**, which the model is given; right of it the **answer**, which it learns to say.
#
# - In tasks that hear (A1..) the sound stands in the seven audio rows (`ear`), and the text row is silent beside it. In tasks that
#   read it is the other way round.
# - The last column of the prompt is the order: `<ans>` or `<asr>` in the text row, `<ans>` or silence in the audio rows.
# - A1A2 and A1T2 differ in *nothing but* that last column. Batch-parallel decoding (notebook 08) lives on it: one question, asked
#   twice, once for the voice and once for the words.
# - Only the answer is learnt. How many of its tokens carry loss?

# %% tags=["nbval-check-output"]
for task in Task:
    asked = dict(positions=4) if task.hears else dict(question_text=SAID)
    one = example(vocab, task, answer_text=SAID if task is Task.A1T1 else FINE,
                  answer_codes=TINY if task.speaks else None, **asked)
    audio_learnt = (one.audio_target != -100).sum(dim=1).tolist()
    print(task, "learns audio tokens per stream:", audio_learnt, "and its text:", bool((one.text_target != -100).any()))
    assert one.audio_in.shape == one.audio_target.shape == (7, len(one))

# %% [markdown]
# Stream `q` learns its `q + 1` silences, its codes and its end: even the waiting has to be learnt. A written answer teaches the
# streams nothing at all.
#
# ### Exercise 3.4: ask for a transcript (difficulty 2/5, 10 minutes)
#
# Write the prompt of A1T1: from `vocab` and the number of heard `positions`, a text row `(S,)` and audio rows `(7, S)`, both
# `int64`. Where the sound will stand, write `vocab.pad_a` in the audio rows.
#
# <details><summary>Hint 1</summary>S is positions + 3: one column to begin, two to end.</details>
# <details><summary>Hint 2</summary>The text row: <code>input_t</code>, <code>pad_t</code> for each position, <code>eot</code>, and
# what asks for a transcript. The audio rows: <code>input_a</code>, <code>pad_a</code> for each, <code>eoa</code>, and
# silence.</details>
# <details><summary>Hint 3</summary><code>row.expand(7, -1)</code> makes seven of one.</details>

# %%
my_prompt = None                                      # replace me: a function of `vocab` and `positions`
checks.transcript_prompt(my_prompt)

# %% [markdown]
# ## What you have seen
#
# - A layout decides what each token knows. Without delay the seven of a frame never meet; flattened they all do, at seven times the
#   steps; delayed they do at the price of seven steps once.
# - A good loss on each stream does not make a good frame: independent draws from right shares are wrong together.
# - Eight rows, five tasks, one model: the last column of the prompt is the order.
#
# ## What next
#
# - Invent a layout: delay whole levels instead of streams (`a`: 1, `b` and `e`: 2, the rest: 3), and put it into `LAYOUTS`. What does
#   it know, how fast is the first sound, and where does its loss lie?
# - Give the flattened model seven times the steps in 3.5. Is it worth it?
# - Babble with `temperature=0.7`: do the frames fit together better? What gets lost?
# - [04 The model](04_the_model.ipynb): what reads these rows, and what writes them.
