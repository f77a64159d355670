# %% [markdown]
# # 02 · Speaking: how do seven tokens become 85 ms of sound?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/02_speaking.ipynb)
#
# A language model chooses from a list. Sound is no list. The **codec** stands between them: it writes sound as tokens, and tokens
# as sound. At the end you will be able to
#
# - turn a waveform into frames of seven tokens and back, with code that you wrote yourself, level by level;
# - say where the 85.3 ms and the bit rate come from, and how many of those bits are really used;
# - measure what is lost on the way with an independent listener;
# - train a codec of this kind from nothing, for a minute or two, and hear how far that goes.
#
# - **Needs** only committed files: the codec's weights, the subset of the data, one recorded question. No other notebook.
# - **Takes** TIME, half of it real training; 30 to 40 minutes to read.

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

from omni_lite import checks, plots
from omni_lite.assistant import CHECKPOINTS, ROOT, fill
from omni_lite.audio import load_audio, to_mono_rate
from omni_lite.codec import build_codec, frames_from_levels, levels_from_frames, log_mel_distance, pad_to_frames
from omni_lite.config import LITE
from omni_lite.data import read_rows
from omni_lite.evaluate import transcribe, wer
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FRAME_ORDER, FRAME_SAMPLES, FRAME_SECONDS, LEVEL_STRIDES, NUM_STREAMS
from omni_lite.weights import load_whisper
from omni_lite.widgets import player

plots.use_style()

# %% [markdown]
# **What we can listen to.** The committed codec, **LiteSNAC**, was trained on one voice: the one that speaks the model's answers.
# Its recordings are not in the repository, for their size; what is there of the answers are their tokens. But the same voice also
# asks some of the questions. Those are real recordings, at 16 kHz, so nothing above 8 kHz is in them. Beside them there are
# questions by many other voices, which this codec has never heard, and one recording of a living stranger.

# %%
rows = read_rows([ROOT / "data" / "subset" / "train.parquet"])
codec = build_codec(LITE.codec)                       # random weights ...
fill(codec, CHECKPOINTS / "lite" / "codec.safetensors")
JUDGED = 8                                            # questions of its own voice that no training here will see


def at_24k(wav_16k):
    """A heard wave at the speaking rate, with room to breathe below full scale: (N,) -> (1.5 N,)"""
    return to_mono_rate(wav_16k, EAR_RATE, CODEC_RATE).clamp(-1, 1)


own = [row for row in rows if row.voice == "piper:joe"]
clip = at_24k(next(row for row in own if 1.5 < len(row.question_wav) / EAR_RATE < 2.5).question_wav)
print(f"{sum(p.numel() for p in codec.parameters()) / 1e6:.1f} million weights; {len(own)} questions in the codec's "
      f"own voice, {len(rows) - len(own)} in others")

# %% [markdown]
# One helper for the pictures of this notebook: how loud each pitch is over time, in 100 bands, which is what the codec's own encoder
# looks at.

# %%
def picture(wav, ax, title=""):
    """Time to the right, 100 mel bands (0 to 12 kHz) upwards, bright is loud. wav: (N,) at 24 kHz"""
    L = len(wav) // 256                               # columns of 256 samples
    mel = codec.encoder.log_mel(torch.as_tensor(wav)[None, None, : 256 * L])[0].T                  # (100, L)
    ax.imshow(mel, origin="lower", extent=(0, 256 * L / CODEC_RATE, 0, 100), vmin=-8, vmax=1)
    ax.set(yticks=[])
    ax.set_title(title, fontsize=12)

# %% [markdown]
# ## 2.1 How many numbers is a second of speech?
#
# **Guess first.** A second of speech on a CD-like line is 24,000 numbers of 16 bits. How many bits does the *content* of a second
# of speech need, if you are allowed to forget everything a listener would not miss? A thousand? Ten thousand?

# %% tags=["nbval-check-output"]
bits = (LITE.codec.codebook - 1).bit_length()
print(f"a frame: {FRAME_SAMPLES} samples = {FRAME_SAMPLES * 16} bits as 16-bit sound")
print(f"         {NUM_STREAMS} tokens of {bits} bits = {NUM_STREAMS * bits} bits as tokens")
print(f"         {FRAME_SAMPLES * 16 // (NUM_STREAMS * bits)} times fewer")

# %%
per_second = CODEC_RATE / FRAME_SAMPLES
print(f"{FRAME_SAMPLES} / {CODEC_RATE} s = {1000 * FRAME_SECONDS:.2f} ms for a frame: {per_second:.2f} frames a second")
print(f"tokens: {NUM_STREAMS * per_second:.1f} a second;  bits: {NUM_STREAMS * bits * per_second:.0f} a second, "
      f"against {16 * CODEC_RATE} of plain sound")
assert abs(FRAME_SECONDS - 0.0853) < 1e-4

# %% [markdown]
# That frame length is the clock of everything that follows. A model that talks in real time must finish a frame every 85.3 ms,
# and a language model that sees a second of speech as 11.7 steps can keep minutes of it in mind.
#
# ### Exercise 2.1: bits per second (difficulty 1/5, 5 minutes)
#
# Write it for any codec: `codebook` entries to choose from, `tokens` a frame, `samples` a frame, `rate` samples a second.
#
# <details><summary>Hint 1</summary>How many yes-or-no questions tell 1024 things apart?</details>
# <details><summary>Hint 2</summary><code>math.log2(codebook)</code> bits a token, <code>rate / samples</code> frames a
# second.</details>

# %%
my_bitrate = None                                     # replace me: a function of codebook, tokens, samples, rate
checks.bits_per_second(my_bitrate)

# %% [markdown]
# ## 2.2 Seven tokens, three speeds
#
# The seven tokens of a frame are not seven equals. They come from three **levels**:
#
# - **coarse**: 1 token for the whole frame (85.3 ms), what is going on at all;
# - **middle**: 2 tokens, one for each half;
# - **fine**: 4 tokens, one for each quarter (21.3 ms), the details that change quickly.
#
# The idea is from **SNAC** (*multi-scale neural audio codec*). Most codecs spend the same number of tokens on every level. Here
# the slow things are said slowly.

# %%
codes = codec.encode(clip[None, None])                # (1, 7, T)
rebuilt = codec.decode(codes)[0, 0, : len(clip)]
SHOWN = 10                                            # frames
fig, axes = plt.subplots(3, 1, figsize=(12, 8), sharex=True, height_ratios=(2, 2.2, 2))
picture(clip, axes[0], "what was recorded")
plots.levels_under(codes[0, :, :SHOWN], axes[1]).set(xlabel="")
axes[1].set_title("how it is written", fontsize=12)
picture(rebuilt, axes[2], "what the codec makes of these tokens")
axes[2].set(xlim=(0, SHOWN * FRAME_SECONDS), xlabel="seconds")
plt.show()
print(f"{len(clip):,} samples -> {tuple(codes.shape)} tokens -> {len(rebuilt):,} samples")

# %% [markdown]
# Each box is a token; its width is the time it stands for. Look for a moment where the sound changes quickly, such as the beginning of
# a word: the coarse token above it has to cover both sides, and it is the fine ones that mark the moment.
#
# To a language model they are given as a list of seven, woven in the order of time: the coarse one, the first middle one and its
# two fine ones, the second middle one and its two. Naively:

# %% tags=["nbval-check-output"]
def naive_frames(levels):
    """(B, T), (B, 2T), (B, 4T) -> (B, 7, T)"""
    coarse, middle, fine = levels
    T = coarse.shape[1]
    frames = [[coarse[:, t], middle[:, 2 * t], fine[:, 4 * t], fine[:, 4 * t + 1],
               middle[:, 2 * t + 1], fine[:, 4 * t + 2], fine[:, 4 * t + 3]] for t in range(T)]
    return torch.stack([torch.stack(frame, dim=1) for frame in frames], dim=2)


levels = levels_from_frames(codes)
assert torch.equal(naive_frames(levels), codes) and torch.equal(frames_from_levels(levels), codes)
names = ("coarse", "middle", "fine")
print(", ".join(f"stream {q}: {names[level]} {position}" for q, (level, position) in enumerate(FRAME_ORDER)))

# %% [markdown]
# ### Exercise 2.2: weave the frames (difficulty 2/5, 8 minutes)
#
# The same without a loop over time: three levels in, `(B, 7, T)` out.
#
# <details><summary>Hint 1</summary><code>middle[:, 0::2]</code> are all first halves at once.</details>
# <details><summary>Hint 2</summary>Make a list of seven tensors <code>(B, T)</code> and <code>torch.stack</code> them along
# axis 1.</details>

# %%
my_frames = None                                      # replace me: a function of `levels`
checks.weave_frames(my_frames)

# %% [markdown]
# ## 2.3 How is a token chosen?
#
# Inside, the codec first turns sound into **latents**, columns of 256 numbers, four a frame. Then three *quantizers* take turns.
# Each looks at what is left of the latents (its *residual*), averages it over its own stretch of time, squeezes it into 8 numbers,
# and looks up the most similar of 1024 entries in its **codebook**. The number of that entry is the token. What the entry stands
# for is subtracted, and the next quantizer works on what remains.
#
# **Guess first.** Which of the three could you mute with the least harm?

# %%
@torch.no_grad()
def naive_encode(wav):
    """(1, 1, N) -> (1, 7, T): the residual quantizer by hand."""
    residual = codec.encoder(pad_to_frames(wav)).transpose(1, 2)                   # (1, 256, 4T)
    levels = []
    for quantizer in codec.quantizer.quantizers:                                   # strides 4, 2, 1
        slow = F.avg_pool1d(residual, quantizer.stride)                            # (1, 256, 4T / stride)
        small = quantizer.in_proj(slow)[0].T                                       # (4T / stride, 8)
        entries = quantizer.codebook.weight                                        # (1024, 8)
        tokens = (F.normalize(small) @ F.normalize(entries).T).argmax(dim=1)       # the most similar direction
        value = quantizer.out_proj(entries[tokens].T[None])                        # (1, 256, 4T / stride)
        residual = residual - value.repeat_interleave(quantizer.stride, dim=-1)
        levels.append(tokens[None])
    return frames_from_levels(levels)


mine = naive_encode(clip[None, None])
agree = float((mine == codes).float().mean())
print(f"{tuple(mine.shape)}, {100 * agree:.1f} % of the tokens as the library has them")
assert agree > 0.98                                   # a near tie may fall to either side by rounding

# %% [markdown]
# Decoding is the way back: look up the entries, bring each to the common speed, add them up, and let a network make sound of the
# sum. Since it is a sum, any level can be left out.

# %%
@torch.no_grad()
def decode_levels(codes, keep=(0, 1, 2), codec=codec):
    """(B, 7, T) -> (N,): the sound of some of the levels."""
    levels = levels_from_frames(codes)
    total = torch.zeros(1, 256, 4 * codes.shape[-1])
    for level in keep:
        quantizer = codec.quantizer.quantizers[level]
        value = quantizer.out_proj(quantizer.codebook(levels[level]).transpose(1, 2))
        total = total + value.repeat_interleave(LEVEL_STRIDES[level], dim=-1)
    return codec.decoder(total.transpose(1, 2))[0, 0]


torch.testing.assert_close(decode_levels(codes), codec.decode(codes)[0, 0], atol=1e-4, rtol=1e-4)

# %% [markdown]
# ### Exercise 2.3: the nearest entry (difficulty 2/5, 10 minutes)
#
# The heart of `naive_encode` is one line. Write it as a function: `vectors` `(n, C)` and `codebook` `(K, C)` in, for each vector
# the number of the entry whose *direction* is most similar, `(n,)`.
#
# <details><summary>Hint 1</summary>Divide every vector and every entry by its length; then the dot product is the cosine.</details>
# <details><summary>Hint 2</summary><code>x / x.norm(dim=1, keepdim=True)</code>, a matrix product, <code>argmax</code>.</details>

# %%
my_nearest = None                                     # replace me: a function of `vectors` and `codebook`
checks.nearest_entry(my_nearest)

# %% [markdown]
# ## 2.4 Level by level
#
# Listen: coarse alone, then with the middle level, then all three.

# %%
steps = {"coarse": (0,), "coarse + middle": (0, 1), "all three": (0, 1, 2)}
added = {name: decode_levels(codes, keep)[: len(clip)] for name, keep in steps.items()}
players = "".join(f"<p>{name} {player(wav.numpy(), CODEC_RATE)}</p>" for name, wav in added.items())
display(HTML(players))

# %%
muted = {"without coarse": (1, 2), "without middle": (0, 2), "fine alone": (2,)}
panels = {"recorded": clip, **added, **{name: decode_levels(codes, keep)[: len(clip)] for name, keep in muted.items()}}
distance = {name: float(log_mel_distance(wav[None, None], clip[None, None])) for name, wav in panels.items()}
fig, axes = plt.subplots(2, 4, figsize=(11, 4.8), sharex=True, sharey=True)
places = [*axes[0], *axes[1, 1:]]
for ax, (name, wav) in zip(places, panels.items(), strict=True):
    picture(wav, ax, f"{name}: {distance[name]:.1f}")
axes[1, 0].axis("off")
axes[1, 0].text(0.5, 0.5, "the number is the distance\nfrom the recording, as it is heard:\n0 is the same, "
                "and the more\nthe worse", transform=axes[1, 0].transAxes, ha="center", va="center")
plt.show()
lacking = {"coarse": "without coarse", "middle": "without middle", "fine": "coarse + middle"}
harm = sorted((distance[name] - distance["all three"], level) for level, name in lacking.items())
print("what the distance grows by if one level is missing:", ", ".join(f"{level} {more:.1f}" for more, level in harm))
assert sorted(distance, key=distance.get)[:2] == ["recorded", "all three"]

# %% [markdown]
# Above, levels are added one by one; below, the first ones are missing. The **distance** is the one that the codec was
# trained to make small: it compares the loudness of pitches at seven window lengths (`log_mel_distance`).
#
# - The coarse level alone is already speech, but blurred: one token for 85 ms. That did not come by itself. A codec that is trained
#   for its sound alone puts a hum into the coarse level and the words into the fine one. This one had a second training, in which
#   the decoder often got the first levels alone, and in which one had to be able to tell from them what Whisper hears
#   (`omni_lite.train.CODEC_PLANS`). Why it matters comes in notebook 07: a language model that says the fine tokens badly
#   should not lose the words with them.
# - Each level that is added sharpens the picture in time.
# - The printed line says which level is missed the most. *First* does not mean *most important*: the first quantizer has one token
#   for 85 ms, and whatever it does not catch is left over for the next two, who have two and four.
# - Each quantizer was trained to describe what the ones before it had *left over*. Mute one, and the others go on describing the
#   rest of something that is not there. Keep that in mind for the next notebook, where a language model has to say all seven tokens
#   of a frame, and they must fit together.
#
# With a running kernel you can mute any of them:

# %%
def mute(coarse=True, middle=True, fine=True):
    keep = [level for level, on in enumerate((coarse, middle, fine)) if on]
    wav = decode_levels(codes, keep)[: len(clip)]
    picture(wav, plt.subplots(figsize=(9, 3))[1])
    plt.show()
    if keep:
        display(HTML(player(wav.numpy(), CODEC_RATE)))


_ = ipywidgets.interact_manual(mute)

# %% [markdown]
# ## 2.5 Are all entries used?
#
# A codebook of 1024 entries gives 10 bits a token only if all entries are used, and all equally often. A typical illness of such
# codecs is *codebook collapse*: a few entries win everything, and the rest is never used and never trained.
#
# **Guess first.** The committed answers are one voice, saying a few hundred sentences. How many of the entries of each level occur
# at all?

# %%
answers = {row.answer: row.codes for row in rows}     # each sentence once
all_codes = torch.cat(list(answers.values()), dim=1)  # (7, frames)
counts, entropy = [], []
for level, name in enumerate(names):
    streams = [q for q, (of, _) in enumerate(FRAME_ORDER) if of == level]
    counts.append(torch.bincount(all_codes[streams].flatten(), minlength=LITE.codec.codebook))
    share = counts[level][counts[level] > 0].double() / counts[level].sum()
    entropy.append(float(-(share * share.log2()).sum()))
    print(f"{name:6s} {len(share):4d} of {LITE.codec.codebook} entries used in {int(counts[level].sum()):6d} tokens, "
          f"{entropy[level]:.2f} bits a token")
per_frame = sum(LEVEL_STRIDES[0] // stride * h for stride, h in zip(LEVEL_STRIDES, entropy, strict=True))
print(f"{len(answers)} sentences, {all_codes.shape[1]} frames: {per_frame:.1f} of {NUM_STREAMS * bits} bits used")
assert all((count > 0).float().mean() > 0.5 for count in counts)       # no collapse

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(2, 1))
for level, (name, color) in enumerate(zip(names, (plots.BLUE, plots.GREEN, plots.SKY), strict=True)):
    often = counts[level].sort(descending=True).values / counts[level].sum()
    axes[0].plot(100 * often, color=color, label=name)
axes[0].axhline(100 / LITE.codec.codebook, color=plots.GREY, ls="--", label="all equally often")
axes[0].set(xlabel="entries, the most frequent first", ylabel="share, %", yscale="log", ylim=(0.003, 3))
axes[0].legend()
axes[1].bar(names, entropy, color=(plots.BLUE, plots.GREEN, plots.SKY))
axes[1].axhline(bits, color=plots.GREY, ls="--")
axes[1].set(ylabel="bits a token (entropy)", ylim=(0, bits + 0.5))
plt.show()

# %% [markdown]
# Every curve stays above zero to the end, and most of it lies near the dashed line: no collapse. While the codec was trained, entries
# that had won nothing for a while were moved to where latents were (`reseed_unused_codes`); you will use the same trick below.
#
# The **entropy** is what a token costs if you only know how often each entry comes. A language model knows more than that, namely
# what was said before, and everything it learns about speech shows as fewer bits. That is the loss you will see in every training
# from here on (there in *nats*: bits times 0.693).
#
# ### Exercise 2.4: entropy (difficulty 2/5, 8 minutes)
#
# Write a function of `counts`, a tensor that says how often each entry came, some of them never.
#
# <details><summary>Hint 1</summary>Shares first: <code>p = counts / counts.sum()</code>. Then minus the sum of
# <code>p * log2(p)</code>.</details>
# <details><summary>Hint 2</summary><code>0 * log2(0)</code> is not a number to a computer: leave the zeros out.</details>

# %%
my_entropy = None                                     # replace me: a function of `counts`
checks.entropy_bits(my_entropy)

# %% [markdown]
# ## 2.6 What is lost? Ask somebody who cannot know
#
# A distance between spectrograms says little about whether one can *understand* it. So we ask an independent listener: the whole
# of Whisper tiny.en writes down what it hears, before and after the codec, and we count wrong words (**WER**, word error rate).
#
# Two groups of questions: one in the voice the codec was trained on (in sentences it may have met), one in eight voices that it has
# never heard.

# %%
others = {row.voice: row for row in rows if row.voice != "piper:joe"}              # one question a voice
strangers = list(others.values())[:: max(1, len(others) // JUDGED)][:JUDGED]
groups = {"own voice": own[:JUDGED], "unknown voices": strangers}
whisper = load_whisper("tiny.en", full=True)
errors = {}
for group, some in groups.items():
    waves = [at_24k(row.question_wav) for row in some]
    tokens = [codec.encode(wav[None, None]) for wav in waves]
    said = [row.question for row in some]
    errors[group, "recorded"] = wer(said, transcribe(whisper, waves, CODEC_RATE))
    for name, keep in steps.items():
        heard = transcribe(whisper, [decode_levels(one, keep) for one in tokens], CODEC_RATE)
        errors[group, name] = wer(said, heard)
for (group, name), value in errors.items():
    print(f"{group:15s} {name:16s} {value:6.1f} %")
assert all(errors[group, "all three"] < errors[group, "coarse"] for group in groups)

# %%
fig, ax = plt.subplots(figsize=(10, 4))
variants = ("recorded", *steps)
for i, (group, color) in enumerate(zip(groups, (plots.BLUE, plots.ORANGE), strict=True)):
    values = [errors[group, name] for name in variants]
    bars = ax.bar(np.arange(4) + 0.4 * i - 0.2, values, 0.38, color=color, label=group)
    ax.bar_label(bars, fmt="%.0f", padding=2)
ax.set_xticks(range(4), variants)
ax.set(ylabel="WER, %", ylim=(0, 1.15 * max(errors.values())))
ax.legend()
plt.show()

# %% [markdown]
# Compare "coarse + middle" with "all three": that step is what four of the seven tokens are spent on. (A WER may pass 100 %: a
# listener who hears words where there are none is wrong more than once a word.)
#
# Compare the two groups, too. A gap between them, before the codec and after it, is what "trained on one voice" means: the codec
# can only say what its one voice could say, and bends strangers towards it. For a model that always answers in the same voice
# that is all it has to do. Here is the hardest case, the living stranger:

# %%
stranger = load_audio(ROOT / "data" / "audio" / "question.wav", CODEC_RATE)
through = codec.decode(codec.encode(stranger[None, None]))[0, 0, : len(stranger)]
fig, axes = plt.subplots(1, 2, figsize=(12, 3.5), sharey=True)
for ax, wav, name in ((axes[0], stranger, "recorded"), (axes[1], through, "through the codec")):
    text = transcribe(whisper, [wav], CODEC_RATE)[0]
    picture(wav, ax, f"{name}: {text[:40]}")
plt.show()

# %% [markdown]
# ## 2.7 Train one yourself
#
# Now from nothing: the same network with random weights, the questions in the codec's own voice (less the eight that judge), and a
# minute or two. What it learns from is simple. Encode and decode a second of speech; compare with the original at seven window
# lengths; move all weights a little so that the two become more alike. Two smaller terms pull codebook entries to the latents
# that chose them, and latents to their entries.
#
# One thing needs a trick. "Choose the nearest entry" is a jump: nudge the latent a little, and the same entry wins, so no gradient
# comes through. The decoder therefore gets the entry, but the gradient is handed to the latent as if nothing had happened in
# between (the *straight-through* estimator).
#
# **Guess first.** After 300 steps, what will you hear: silence, noise, a hum with the rhythm of speech, or words?

# %%
from omni_lite.codec import LiteSNAC, codec_loss
from omni_lite.train import cosine, crops

material = [(at_24k(row.question_wav) * 32_767).to(torch.int16) for row in own[JUDGED:]]
minutes = sum(map(len, material)) / CODEC_RATE / 60
print(f"{len(material)} questions, {minutes:.1f} minutes of speech")
torch.manual_seed(0)
student = LiteSNAC(LITE.codec).train()                # random weights
STEPS, BATCH = 300, 8
optimizer = torch.optim.AdamW(student.parameters(), betas=(0.9, 0.98))
pieces = crops(material, seconds=1.0, batch=BATCH)    # random seconds of speech, (B, 1, 24000)
losses, mels = [], []

# %%
def one_step(step):
    """Encode, decode, compare, move the weights."""
    for group in optimizer.param_groups:
        group["lr"] = cosine(step, STEPS, peak=2e-3, end=5e-5, warmup=20)
    wav = next(pieces)
    with torch.autocast("cpu", torch.bfloat16):
        rebuilt, found = student(wav)
    parts = codec_loss(rebuilt, wav, found)
    optimizer.zero_grad(set_to_none=True)
    parts["loss"].backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    if step % 10 == 0 and step < 0.6 * STEPS:
        student.reseed_unused_codes(found, idle_steps=20)
    return float(parts["loss"].detach()), float(parts["mel"])

# %%
began = perf_counter()
for step in range(STEPS):
    loss, mel = one_step(step)
    losses.append(loss)
    mels.append(mel)
    if (step + 1) % 50 == 0:
        print(f"step {step + 1:3d}  loss {np.mean(losses[-50:]):.2f}  distance {np.mean(mels[-50:]):.2f}  "
              f"{perf_counter() - began:4.0f} s")
student.eval()
assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:10])

# %% [markdown]
# How far did it get? Compare it, on the questions that were kept back, with what it was before and with the committed codec.

# %%
def rebuilt_by(codec, wav):
    """A wave through a codec and back: (N,) -> (N,)"""
    return codec.decode(codec.encode(wav[None, None]))[0, 0, : len(wav)]


held_out = [at_24k(row.question_wav) for row in own[:JUDGED]]
torch.manual_seed(0)
codecs = {"random weights": LiteSNAC(LITE.codec).eval(), f"{STEPS} steps": student, "committed": codec}
far = {name: np.mean([float(log_mel_distance(rebuilt_by(one, wav)[None, None], wav[None, None])) for wav in held_out])
       for name, one in codecs.items()}
fig, axes = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(2, 1))
axes[0].plot(losses, color=plots.GREY, alpha=0.5, lw=1)
axes[0].plot(plots.running_mean(losses, 20), label="loss")
axes[0].set(xlabel="step", ylabel="loss", title="my codec learns")
bars = axes[1].bar(list(far), list(far.values()), color=(plots.GREY, plots.BLUE, plots.GREEN))
axes[1].bar_label(bars, fmt="%.1f")
axes[1].set(ylabel="distance, held-out questions", title="and the committed one")
axes[1].tick_params(axis="x", rotation=15)
plt.show()
assert far["committed"] < far[f"{STEPS} steps"] < far["random weights"]

# %%
judge_me = held_out[0]
fig, axes = plt.subplots(1, 3, figsize=(13, 3.8), sharey=True)
sounds = {"recorded": judge_me, f"mine, {STEPS} steps": rebuilt_by(student, judge_me),
          "committed": rebuilt_by(codec, judge_me)}
for ax, (name, wav) in zip(axes, sounds.items(), strict=True):
    text = transcribe(whisper, [wav], CODEC_RATE)[0]
    picture(wav, ax, f"{name}\n{text[:36]}")
plt.show()
said = [row.question for row in own[:JUDGED]]
mine = wer(said, transcribe(whisper, [rebuilt_by(student, wav) for wav in held_out], CODEC_RATE))
print(f"WER on {JUDGED} held-out questions: recorded {errors['own voice', 'recorded']:.0f} %, mine {mine:.0f} %, "
      f"committed {errors['own voice', 'all three']:.0f} %")
used = [float((student.idle[level] < 100).float().mean()) for level in range(3)]
print("entries that won something in the last 100 steps:", ", ".join(f"{name} {100 * share:.0f} %"
                                                                   for name, share in zip(names, used, strict=True)))

# %% [markdown]
# The sentence above each picture is what Whisper wrote. Most of the way goes quickly: loudness, rhythm and the broad colour of the
# voice are there almost at once, because the loss sees them in every window. The rest is slow. Between your codec and the
# committed one lie more steps, more speech of the same kind, and the second training of section 2.4; the network and the code are
# the same (`omni_lite.train.train_codec`), and its card tells how long it took:

# %%
from omni_lite.weights import read_card

card = read_card(CHECKPOINTS / "lite")
for plan in card["codec"]:
    print(f"{plan['name']:13s} {plan['steps']} steps of {plan['batch']} x {plan['seconds']:g} s")
print(f"the committed codec: {card['minutes']['codec']:.0f} minutes on {card['hardware']}")

# %% [markdown]
# ## 2.8 The codec of the paper
#
# Mini-Omni speaks with the published **SNAC** at 24 kHz. LiteSNAC has the same quantizer (it uses the `snac` package's own), the
# same frame, the same order of tokens. What lies around the quantizer differs:
#
# | | SNAC 24 kHz | LiteSNAC |
# |---|---|---|
# | encoder | convolutions on the samples themselves, step by step 2 x 4 x 8 x 8 = 512 times slower | a log-mel spectrogram, then ConvNeXt blocks |
# | decoder | the same back, sample by sample, with a little noise mixed in | magnitude and phase of a spectrum, then an inverse Fourier transform |
# | entries a codebook | 4096 (12 bits) | 1024 (10 bits) |
# | trained on | many voices, music, sounds; with adversarial losses | one voice; without |
# | meant for | sounding good | being trained here, and running on two cores |

# %%
import snac

from omni_lite.codec import SNAC_24KHZ, Snac

torch.manual_seed(0)
full = snac.SNAC(**SNAC_24KHZ).eval()                 # the published sizes, random weights
tiny = Snac(snac.SNAC(**(SNAC_24KHZ | dict(encoder_dim=16, decoder_dim=256)))).eval()


def outline(module):
    """Kinds of layers in order of their first use, counted."""
    parts = [part for child in module.children()
             for part in (child if isinstance(child, torch.nn.Sequential) else [child])]
    kinds = [type(part).__name__.removeprefix("Parametrized") for part in parts]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


PARTS = ("encoder", "quantizer", "decoder")
for name, model in (("SNAC 24 kHz", full), ("a tiny SNAC", tiny.model), ("LiteSNAC", codec)):
    size = {part: sum(p.numel() for p in getattr(model, part).parameters()) / 1e6 for part in PARTS}
    print(f"{name:12s} " + ", ".join(f"{part} {millions:.2f} M" for part, millions in size.items()))
for name, model in (("SNAC 24 kHz", full), ("LiteSNAC", codec)):
    print(f"{name:12s} encoder: {outline(model.encoder)};  decoder: {outline(model.decoder)}")

# %% [markdown]
# Everything after the codec sees no difference: the same two functions, the same shape.

# %% tags=["nbval-check-output"]
second = torch.zeros(1, 1, CODEC_RATE)
second[..., ::100] = 0.1                              # some clicks
for name, one in (("LiteSNAC", codec), ("a tiny SNAC", tiny)):
    tokens = one.encode(second)
    print(f"{name:12s} {tuple(second.shape)} -> {tuple(tokens.shape)} -> {tuple(one.decode(tokens).shape)}")

# %%
for name, one in (("LiteSNAC", codec), ("a tiny SNAC", tiny)):
    tokens = one.encode(second)
    one.decode(tokens)                                # once for nothing
    began = perf_counter()
    for _ in range(3):
        one.decode(tokens)
    print(f"{name:12s} decodes a second of speech in {1000 * (perf_counter() - began) / 3:.0f} ms on this machine")

# %% [markdown]
# And the real thing, if the Hugging Face hub can be reached from here (or its files are in the cache already). If not, one
# sentence says so, and nothing else changes.

# %%
import urllib.request

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.utils import disable_progress_bars

from omni_lite.weights import SNAC_FILES, SNAC_ID, load_snac

published = None
try:
    if not isinstance(try_to_load_from_cache(SNAC_ID, SNAC_FILES[1]), str):
        urllib.request.urlopen(f"https://huggingface.co/{SNAC_ID}", timeout=3).close()
    disable_progress_bars()
    published = Snac(load_snac())
except (OSError, ValueError):
    print("The Hugging Face hub cannot be reached from here: the published SNAC stays silent in this run.")
if published is not None:
    sounds = {"recorded": stranger, "SNAC 24 kHz": rebuilt_by(published, stranger), "LiteSNAC": through}
    fig, axes = plt.subplots(1, 3, figsize=(13, 3.8), sharey=True)
    for ax, (name, wav) in zip(axes, sounds.items(), strict=True):
        picture(wav, ax, f"{name}\n{transcribe(whisper, [wav], CODEC_RATE)[0][:36]}")
    plt.show()

# %% [markdown]
# ## What you have seen
#
# - 2048 samples become seven tokens in three levels; a frame lasts 85.3 ms, and that is the clock of a talking model.
# - Each level describes what the levels before it left over. The seven tokens of a frame belong together.
# - A codebook can be wide and still unused; entropy tells how many of its bits are worth anything.
# - Where the words are among the levels is a matter of training.
# - A codec of this kind learns the outline of a voice in a minute or two, and needs many times longer for the rest.
#
# ## What next
#
# - Give your own codec a voice that it can learn from: your own, a few minutes of it, in place of `material`.
# - Take the straight-through trick away (in `omni_lite.codec.quantize`, let `straight_through` be `entries`): which weights stop
#   learning?
# - Feed the decoder tokens drawn at random. What does a codec say that has nothing to say?
# - [03 Eight rows](03_eight_rows.ipynb): how a language model says seven tokens at once.
