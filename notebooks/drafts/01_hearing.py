# %% [markdown]
# # 01 · Hearing: what is left of a question when it reaches the language model?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/01_hearing.ipynb)
#
# At the end you will be able to
#
# - turn sound into a log-mel spectrogram with your own hands, equal to Whisper's to the last digits that matter;
# - say why a second of speech becomes first 100 columns, then 50 features, then 12.5 positions of a language model;
# - read off a measured curve what survives noise, speed and pitch, and what does not;
# - show that the ears care more about *what* was said than about *who* said it.
#
# - **Needs** only committed files: the `lite` weights, the subset of the data, one recorded question. No other notebook.
# - **Takes** TIME; 30 to 40 minutes to read.

# %%
import sys

if "google.colab" in sys.modules:                     # on Colab: fetch the project first
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "./omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import math
from time import perf_counter

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from whisper.audio import mel_filters

from omni_lite import checks, plots
from omni_lite.assistant import ROOT, Assistant
from omni_lite.audio import load_question, log_mel, to_mono_rate
from omni_lite.data import read_rows
from omni_lite.evaluate import transcribe, wer, words
from omni_lite.hear import Ears, num_columns, num_features
from omni_lite.streams import Task
from omni_lite.vocab import EAR_HOP, EAR_RATE, FEATURE_SAMPLES, FEATURES_PER_SECOND, FRAMES_PER_SECOND
from omni_lite.weights import load_whisper

plots.use_style()

# %% [markdown]
# The material: one recording of a stranger, and questions of the committed subset, spoken by many synthetic voices. The ears are
# the encoder of OpenAI's **Whisper tiny.en**, with its real weights. They are *frozen*: nothing in this course ever changes them.

# %%
SUBSET = ROOT / "data" / "subset"
question = load_question(ROOT / "data" / "audio" / "question.wav")     # (N,) float32 at 16 kHz
rows = read_rows([SUBSET / "train.parquet"])
assistant = Assistant.load()                          # the finished model, to see what it makes of what it hears
ears = assistant.ears
print(f"{len(rows)} questions by {len({row.voice for row in rows})} voices")
print(f"the ears: {sum(p.numel() for p in ears.parameters()) / 1e6:.1f} million weights, "
      f"{sum(p.requires_grad for p in ears.parameters())} of their tensors can be trained")

# %% [markdown]
# ## 1.1 How does pressure become a picture?
#
# A microphone gives 16,000 numbers a second, the pressure of the air. Two recordings of the same word never agree in a single
# one of them. The ear inside your head solves this by asking, many times a second, *how loud is each pitch right now?* So does
# the **log-mel spectrogram**, in five small steps.
#
# **Guess first.** How long should the piece of sound be in which you measure pitch? What goes wrong if it is very short, and what
# if it is very long?

# %% tags=["nbval-check-output"]
WINDOW = 400                                          # samples: 25 ms, long enough for a low voice's period
pressure = F.pad(question[None], (WINDOW // 2, WINDOW // 2), mode="reflect")[0]  # centred windows
windows = pressure.unfold(0, WINDOW, EAR_HOP)[:-1]    # 1. a window of 25 ms every 10 ms: (columns, 400)
tapered = windows * torch.hann_window(WINDOW)         # 2. fade each in and out, so that its edges make no noise
power = torch.fft.rfft(tapered).abs() ** 2            # 3. how strong is each of 201 pitches: (columns, 201)
mel = power @ mel_filters("cpu", 80).T                # 4. add them up into 80 bands: (columns, 80)
log = mel.T.clamp(min=1e-10).log10()                  # 5. loudness is a logarithm: (80, columns)
naive = (log.clamp(min=log.max() - 8) + 4) / 4        # forget what is 80 dB below the loudest; scale to about -1 .. 1

torch.testing.assert_close(naive, log_mel(question), atol=2e-3, rtol=0)     # the library's, which is Whisper's
print(f"{len(question):,} samples -> {tuple(naive.shape)}: {EAR_RATE // EAR_HOP} columns a second, 80 bands each")

# %%
fig, axes = plt.subplots(2, 2, figsize=(10.5, 5.8))
loud = int(power.sum(1).argmax())                     # the loudest column: a vowel
ms = 1000 * np.arange(WINDOW) / EAR_RATE
axes[0, 0].plot(ms, windows[loud], color=plots.GREY, label="as it was")
axes[0, 0].plot(ms, tapered[loud], label="faded")
axes[0, 0].set(title="1, 2: one window of sound", xlabel="ms")
axes[0, 0].legend()
axes[0, 1].plot(np.linspace(0, 8000, 201), 10 * power[loud].clamp(min=1e-10).log10())
axes[0, 1].set(title="3: its pitches", xlabel="Hz", ylabel="dB")
for band in range(0, 80, 8):
    axes[1, 0].plot(np.linspace(0, 8000, 201), mel_filters("cpu", 80)[band])
axes[1, 0].set(title="4: every eighth of the 80 bands", xlabel="Hz", yticks=[])
axes[1, 1].imshow(naive, origin="lower", extent=(0, naive.shape[1] / 100, 0, 80))
axes[1, 1].axvline(loud / 100, color="white", lw=1)
axes[1, 1].set(title="5: all columns, the log-mel spectrogram", xlabel="seconds", ylabel="band")
plt.show()

# %% [markdown]
# Read it in order. The window holds a few periods of the voice; faded at both ends it does not click. Its spectrum is a comb: the
# voice's own pitch and its multiples, under a hilly outline. The outline is the shape of the mouth, and the shape of the mouth is
# the vowel. The **mel bands** are narrow where pitch is low and wide where it is high, as our own hearing is, so they keep the
# outline and blur the comb. That is the first thing that is lost, and on purpose: *which tone* was sung matters little for *what*
# was said.
#
# Where do the bands come from? Whisper ships them as a file. Eight lines rebuild it.

# %%
def to_mel(hz):
    """Slaney's scale: even steps up to 1000 Hz, then equal ratios (27 steps for a factor of 6.4)."""
    hz = np.asarray(hz, float)
    return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))


def to_hz(mel):
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


pitches = np.linspace(0, EAR_RATE / 2, WINDOW // 2 + 1)                             # (201,)
corners = to_hz(np.linspace(to_mel(0), to_mel(EAR_RATE / 2), 82))                   # 80 triangles have 82 corners
low, top, high = (corners[i : 80 + i, None] for i in range(3))                      # each (80, 1)
triangles = np.minimum((pitches - low) / (top - low), (high - pitches) / (high - top)).clip(0)
triangles *= 2 / (high - low)                                                       # each has the same area
assert np.allclose(triangles, mel_filters("cpu", 80), atol=1e-6)
widths = (high - low)[:, 0]
print(f"the lowest band is {widths[0]:.0f} Hz wide, the highest {widths[-1]:.0f} Hz")

# %% [markdown]
# ### Exercise 1.1: cut the windows (difficulty 2/5, 8 minutes)
#
# Above, `unfold` did the cutting. Write it yourself: from `wav` of shape `(N,)`, every window of `size` samples that fits, each
# beginning `hop` samples after the one before, as a tensor `(n, size)`.
#
# <details><summary>Hint 1</summary>Where does the last window begin? It must end with sample N - 1 at the latest.</details>
# <details><summary>Hint 2</summary><code>torch.stack</code> of slices in a list comprehension over
# <code>range(0, len(wav) - size + 1, hop)</code>.</details>

# %%
my_windows = None                                     # replace me: a function of `wav`, `size` and `hop`
checks.cut_windows(my_windows)

# %% [markdown]
# ## 1.2 Why 50 features a second, and then 12.5?
#
# The encoder begins with two small convolutions. The second one takes only every second column: 100 a second become 50. Four
# transformer blocks follow, in which every moment may look at every other one. Written out, that is all:

# %%
@torch.no_grad()
def naive_ears(wav_16k):
    """(N,) -> (1, T, 384): Whisper's encoder on the question and 0.2 s of silence, nothing more."""
    encoder = ears.encoder
    mel = log_mel(F.pad(wav_16k, (0, EAR_RATE // 5)))                              # (80, columns)
    x = F.gelu(encoder.conv1(mel[None]))                                           # (1, 384, columns)
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)                                   # (1, T, 384), T = columns / 2
    x = x + encoder.positional_embedding[: x.shape[1]]                             # which moment is this?
    for block in encoder.blocks:
        x = block(x)                                                               # attention, then an MLP
    return encoder.ln_post(x)


features = ears.hear(question)                        # the library's
torch.testing.assert_close(naive_ears(question), features, atol=1e-3, rtol=1e-3)
positions = assistant.model.asr_adapter(features)     # four features become one position of the language model
seconds = len(question) / EAR_RATE + 0.2
for name, x in (("columns", log_mel(question, padding=3200).T), ("features", features[0]), ("positions", positions[0])):
    print(f"{len(x):4d} {name:9s} of {x.shape[1]:3d} numbers: {len(x) / seconds:5.1f} a second")

# %% [markdown]
# **Guess first.** How different is a feature from its neighbour, 20 ms later? And from the one 200 ms later?
#
# We measure it: the **cosine** between what is heard now and what is heard a little later, averaged over all moments of 60
# questions. Before that the mean of all features is taken away. All of them share a large part that says nothing, and without
# that step everything would look alike.

# %%
some = [row.question_wav for row in rows[:60]]
all_mels = [log_mel(wav).T for wav in some]           # each (columns, 80)
all_features = [ears.hear(wav)[0] for wav in some]    # each (T, 384)
mel_mean, feature_mean = torch.cat(all_mels).mean(0), torch.cat(all_features).mean(0)


def later(clips, mean, lag):
    """How alike two moments are that lie `lag` rows apart, averaged over all clips."""
    pairs = [F.cosine_similarity(clip[lag:] - mean, clip[:-lag] - mean, dim=-1) for clip in clips]
    return float(torch.cat(pairs).mean())


mel_lags, feature_lags = range(1, 41), range(1, 21)
mel_curve = [later(all_mels, mel_mean, lag) for lag in mel_lags]
feature_curve = [later(all_features, feature_mean, lag) for lag in feature_lags]
print(f" 10 ms later: columns {mel_curve[0]:.2f}")
for ms in (20, 80, 200, 400):
    print(f"{ms:3d} ms later: columns {mel_curve[ms // 10 - 1]:.2f}, features {feature_curve[ms // 20 - 1]:.2f}")
assert mel_curve[0] > mel_curve[7] > mel_curve[15] and feature_curve[0] > feature_curve[3] > feature_curve[9]
assert feature_curve[3] > mel_curve[7]                # 80 ms later a feature is still more like itself

# %%
plt.figure(figsize=(10, 4))
plt.plot([10 * lag for lag in mel_lags], mel_curve, "o-", ms=4, label="log-mel columns, 100 a second")
plt.plot([20 * lag for lag in feature_lags], feature_curve, "s-", ms=5, label="Whisper's features, 50 a second")
for ms, name, y in ((10, "100 a second", 0.97), (20, "50 a second", 0.88), (80, "12.5 a second", 0.79)):
    plt.axvline(ms, color=plots.GREY, lw=1)
    plt.text(ms + 3, y, name, color="black")
plt.axhline(0, color="black", lw=0.8)
plt.ylim(-0.2, 1.02)
plt.xlabel("how much later, ms")
plt.ylabel("how alike (cosine)")
plt.legend(loc="center right")
plt.show()

# %% [markdown]
# Neighbouring columns are much alike: a mouth cannot move far in 10 ms. Keeping every second one loses little (and the convolution
# has looked at the ones in between), and it halves the work of everything after it. Features change more slowly than columns: each
# of them has already looked around, and speaks for a longer stretch of sound than its own 20 ms.
#
# So why not take fewer? Because a short sound, the *t* in "two", is over in a few features. The `lite` preset takes a middle way:
# it **stacks** four neighbours into one long vector and lets the adapter decide what of it matters. Nothing is thrown away before
# a trained layer has seen it, and the language model has a quarter of the positions to read. The paper's model does not stack.

# %% tags=["nbval-check-output"]
for seconds in (1, 2, 5):
    N = seconds * EAR_RATE
    T = num_features(N)
    print(f"{seconds} s: {N} samples, {num_columns(N)} columns, {T} features, {math.ceil(T / 4)} positions")

# %% [markdown]
# Two numbers are worth keeping in mind. The positions come at 12.5 a second, and the frames of the answer at 11.7 a second (next
# notebook): hearing and speaking run at nearly the same pace inside the language model. And the counts above are a little larger
# than 100, 50 and 12.5 for each second, because 0.2 s of silence is appended: a sign that the question is over.

# %%
print(f"features {FEATURES_PER_SECOND} a second, positions {FEATURES_PER_SECOND / 4} a second, "
      f"frames of the answer {FRAMES_PER_SECOND:.2f} a second; a feature stands for {FEATURE_SAMPLES} samples")

# %% [markdown]
# ### Exercise 1.2: count the positions (difficulty 2/5, 8 minutes)
#
# Write a function of `num_samples` that gives the number of positions a question takes: 3,200 samples of silence are appended
# (but all of it never passes 30 s, where Whisper's window ends), a column is 160 samples (whole ones only), a feature two columns,
# a position four features (the last group may be incomplete).
#
# <details><summary>Hint 1</summary>Columns round down, features and positions round up.</details>
# <details><summary>Hint 2</summary><code>min(num_samples + 3200, 480_000) // 160</code> are the columns.</details>

# %%
my_positions = None                                   # replace me: a function of `num_samples`
checks.positions_of(my_positions)

# %% [markdown]
# ## 1.3 A window that ends with the question
#
# Whisper was trained on windows of 30 s: a short question is followed by half a minute of silence, and the encoder works through
# all of it. The released Mini-Omni does so too, and keeps the features of the question only. Here the window simply *ends* 0.2 s
# after the question.
#
# **Guess first.** How much time does that save? Does it change the features?

# %%
whole = Ears(ears.encoder, whole_window=True)         # the same weights, Whisper's own window
for hear, name in ((whole.hear, "30 s window"), (ears.hear, "window ends with the question")):
    hear(question)                                    # once for nothing: the first call sets things up
    began = perf_counter()
    for _ in range(5):
        heard = hear(question)
    took_ms = 1000 * (perf_counter() - began) / 5
    print(f"{name:30s} {took_ms:6.1f} ms, {heard.shape[1]} features kept")

# %%
short, long = ears.hear(question)[0], whole.hear(question)[0]
T = min(len(short), len(long))
alike = F.cosine_similarity(short[:T] - feature_mean, long[:T] - feature_mean, dim=-1)
fig, axes = plt.subplots(2, 1, figsize=(10, 5), sharex=True)
axes[0].imshow(log_mel(question), origin="lower", extent=(0, len(question) / EAR_RATE, 0, 80))
axes[0].set(ylabel="mel band", title="the question")
axes[1].plot(np.arange(T) / FEATURES_PER_SECOND, alike)
axes[1].set(xlabel="seconds", ylabel="cosine", ylim=(min(0.0, float(alike.min())), 1.05),
            title="features of the short window against those of the 30 s window, moment by moment")
plt.show()
print(f"mean {alike.mean():.2f}, lowest {alike.min():.2f} at {int(alike.argmin()) / FEATURES_PER_SECOND:.2f} s")

# %% [markdown]
# Related, but not the same: in each of its blocks the encoder may look at the silence, and what it finds there colours what it says
# about the words. Look where the curve is lowest: what is near the end of the question is near the difference. Neither of the two
# is more right than the other. What matters is that the adapter learns from the same kind of window that it will hear later. Does it mind the other kind? We let the finished model write down 16 questions both
# ways. (WER, the **word error rate**, counts wrong, missing and extra words per hundred words that were said.)

# %%
clips = read_rows([SUBSET / "dev_phrasings.parquet"])[:16]             # phrasings that were never trained
said = [row.question for row in clips]
waves = [row.question_wav for row in clips]


def written(features):
    """What the finished model writes down when it hears these features."""
    return assistant.answer(features, Task.A1T1, limit=40).text


as_trained = [written(ears.hear(wav)) for wav in waves]
other_window = [written(whole.hear(wav)) for wav in waves]
print(f"window as in training: WER {wer(said, as_trained):.1f} %;  30 s window: WER {wer(said, other_window):.1f} %\n")
for wanted, one, two in list(zip(said, as_trained, other_window, strict=True))[:4]:
    print(f"said   {wanted}\nshort  {one}\n30 s   {two}\n")

# %% [markdown]
# A frozen part and a trained part are a pair: change what the first one says, even for good reasons, and the second one may not
# understand it any more. That is why `EarConfig.whole_window` belongs to the model's configuration and is no switch for users.

# %% [markdown]
# ## 1.4 What survives noise, speed and pitch?
#
# Everybody says that Whisper is *robust*. Let us measure it. We damage the same 16 questions in four ways, a little and a lot,
# and ask two things each time: how alike are the features to those of the clean question (cosine, aligned in time), and what does
# the finished model still write down?
#
# **Guess first.** Rank them: hiss as loud as the voice; other people talking as loud as the voice; speech 1.6 times as fast;
# a voice half an octave higher. Which one hurts most?
#
# First the tools. Noise is scaled to a chosen **signal-to-noise ratio** in decibels: at 0 dB both have the same power, at 20 dB
# the voice has a hundred times more. Speed and pitch are changed one without the other by a *phase vocoder*: cut the sound into
# short spectra, read them faster or slower, and let every pitch go on swinging where it was.

# %%
def noisy(wav, noise, snr_db):
    """Speech plus noise of a chosen ratio of powers, in dB."""
    gain = (wav.pow(2).mean() / noise.pow(2).mean()).sqrt() * 10 ** (-snr_db / 20)
    return wav + gain * noise


def stretch(wav, rate):
    """Speak `rate` times as fast at the same pitch: (N,) -> about (N / rate,)"""
    window = torch.hann_window(512)
    S = torch.stft(wav, 512, 128, window=window, return_complex=True)                   # (257, L)
    at = torch.arange(0, S.shape[1] - 1, rate)                                          # where to read, in columns
    i, part = at.long(), at.frac()
    loudness = (1 - part) * S[:, i].abs() + part * S[:, i + 1].abs()
    turn = S[:, i + 1].angle() - S[:, i].angle()                                # how far each pitch swings in a hop
    phase = torch.cat([S[:, :1].angle(), turn[:, :-1]], dim=1).cumsum(1)
    return torch.istft(torch.polar(loudness, phase), 512, 128, window=window)


def shift(wav, semitones):
    """The same speed, another pitch: stretch, then play faster."""
    ratio = 2 ** (semitones / 12)
    return to_mono_rate(stretch(wav, 1 / ratio), round(EAR_RATE * ratio), EAR_RATE)

# %%
sentence = waves[0]
lengths = {name: len(wav) / len(sentence) for name, wav in (("twice as fast", stretch(sentence, 2.0)),
                                                           ("6 semitones up", shift(sentence, 6)))}
print(", ".join(f"{name}: {ratio:.2f} times as long" for name, ratio in lengths.items()))
assert abs(lengths["twice as fast"] - 0.5) < 0.02 and abs(lengths["6 semitones up"] - 1) < 0.03

# %% [markdown]
# Look at what these do before trusting numbers. The sentence above each picture is what the finished model wrote.

# %%
dice = torch.Generator().manual_seed(0)
hiss = torch.randn(10 * EAR_RATE, generator=dice)                      # white noise: every pitch equally loud
crowd = sum(wav.repeat(20)[: 10 * EAR_RATE] / wav.pow(2).mean().sqrt() for wav in some[40:44])   # four people at once
examples = {"clean": sentence, "hiss, 5 dB": noisy(sentence, hiss[: len(sentence)], 5),
            "people, 5 dB": noisy(sentence, crowd[: len(sentence)], 5), "1.6 times as fast": stretch(sentence, 1.6),
            "6 semitones down": shift(sentence, -6), "6 semitones up": shift(sentence, 6)}
fig, axes = plt.subplots(2, 3, figsize=(9.5, 4.2))
for ax, (name, wav) in zip(axes.flat, examples.items(), strict=True):
    ax.imshow(log_mel(wav), origin="lower", extent=(0, len(wav) / EAR_RATE, 0, 80))
    ax.set_title(f"{name}\n{written(ears.hear(wav))[:36]}", fontsize=12)
    ax.set(xlabel="seconds", yticks=[])
plt.show()
print("said:", said[0])

# %% [markdown]
# A slider for the same (it needs a running kernel; the curve below stands for it otherwise). Find the place where the sentence
# breaks.

# %%
def show_noise(snr_db, people=False):
    noise = crowd if people else hiss
    wav = noisy(sentence, noise[: len(sentence)], snr_db)
    plt.figure(figsize=(8, 3))
    plt.imshow(log_mel(wav), origin="lower", extent=(0, len(wav) / EAR_RATE, 0, 80))
    plt.title(written(ears.hear(wav)))
    plt.xlabel("seconds")
    plt.show()


slider = ipywidgets.IntSlider(10, -10, 30, 5, description="SNR, dB", continuous_update=False)
_ = ipywidgets.interact(show_noise, snr_db=slider, people=False)

# %% [markdown]
# Now all of it. Features of faster speech come sooner, so the clean ones are read at the same relative time before the two are
# compared.

# %%
DAMAGES = {
    "hiss": ((20, 10, 5, 0, -5), lambda wav, x: noisy(wav, hiss[: len(wav)], x)),
    "people": ((20, 10, 5, 0, -5), lambda wav, x: noisy(wav, crowd[: len(wav)], x)),
    "speed": ((0.6, 0.8, 1.25, 1.6, 2.0), stretch),
    "pitch": ((-6, -3, 3, 6), shift),
}


def likeness(features, clean):
    """Mean cosine of two feature sequences, the clean one read at the same relative times: (T, D), (T', D) -> float"""
    aligned = F.interpolate(clean.T[None], size=len(features), mode="linear", align_corners=False)[0].T
    return float(F.cosine_similarity(features - feature_mean, aligned - feature_mean, dim=-1).mean())


def spoken_part(wav):
    return ears.hear(wav)[0][: len(wav) // FEATURE_SAMPLES]            # without the silence after it


clean_features = [spoken_part(wav) for wav in waves]
strangers = [likeness(a, b) for a, b in zip(clean_features, clean_features[1:] + clean_features[:1], strict=True)]
chance = sum(strangers) / len(strangers)              # two different questions: what "nothing in common" looks like
print(f"different questions: {chance:.2f}; the same question: 1.00")

# %%
alike, errors = {}, {}
for kind, (amounts, damage) in DAMAGES.items():
    for x in amounts:
        damaged = [damage(wav, x) for wav in waves]
        alike[kind, x] = np.mean([likeness(spoken_part(wav), clean)
                                  for wav, clean in zip(damaged, clean_features, strict=True)])
        errors[kind, x] = wer(said, [written(ears.hear(wav)) for wav in damaged])
clean_error = wer(said, as_trained)
for kind, (amounts, _) in DAMAGES.items():
    line = "   ".join(f"{x:g}: {alike[kind, x]:.2f}, {errors[kind, x]:.0f} %" for x in amounts)
    print(f"{kind:7s} {line}")
print(f"clean   1.00, {clean_error:.0f} %")

# %% [markdown]
# One more listener, for a fair trial: the *whole* of Whisper tiny.en, whose own decoder reads the features of the same ears (and
# which always hears the 30 s window). If it still understands where our small model does not, then the words are still in the
# features, and it is our language model that fails to find them.

# %%
whisper = load_whisper("tiny.en", full=True)
judge = {x: wer(said, transcribe(whisper, [noisy(wav, hiss[: len(wav)], x) for wav in waves], EAR_RATE))
         for x in (20, 5, 0, -5)}
judge["clean"] = wer(said, transcribe(whisper, waves, EAR_RATE))
print("Whisper's own decoder, hiss:", ", ".join(f"{x} dB {value:.0f} %" for x, value in judge.items() if x != "clean"),
      f"; clean {judge['clean']:.0f} %")

# %%
fig, axes = plt.subplots(2, 4, figsize=(13, 6), sharey="row")
labels = {"hiss": "SNR of hiss, dB", "people": "SNR of people, dB", "speed": "times as fast", "pitch": "semitones"}
trained = {"hiss": (3, 20), "people": (3, 20), "speed": (0.85, 1.18), "pitch": (-2.8, 2.9)}
for column, (kind, (amounts, _)) in enumerate(DAMAGES.items()):
    still = {"speed": 1.0, "pitch": 0}.get(kind)      # the amount that changes nothing
    xs = sorted([*amounts, *([] if still is None else [still])])
    axes[0, column].plot(xs, [alike.get((kind, x), 1.0) for x in xs], "o-")
    axes[0, column].axhline(chance, color=plots.GREY, ls="--")
    axes[1, column].plot(xs, [errors.get((kind, x), clean_error) for x in xs], "o-", label="our model")
    axes[1, column].axhline(clean_error, color=plots.GREY, ls="--")
    for ax in axes[:, column]:
        ax.axvspan(*trained[kind], color=plots.YELLOW, alpha=0.35, lw=0)
    axes[1, column].set_xlabel(labels[kind])
hiss_x = [x for x in judge if x != "clean"]
axes[1, 0].plot(hiss_x, [judge[x] for x in hiss_x], "s-", color=plots.RED, label="all of Whisper")
axes[1, 0].legend()
axes[0, 0].set(ylabel="features: how alike", ylim=(min(0.0, chance) - 0.05, 1.05))
axes[1, 0].set(ylabel="transcripts: WER, %", ylim=(0, None))
plt.show()
hurt = max(errors, key=errors.get)
print(f"the worst for the transcripts: {hurt[0]} at {hurt[1]:g} with a WER of {errors[hurt]:.0f} %")
print(f"one word is {100 / sum(len(words(text).split()) for text in said):.1f} points of WER")
assert alike["hiss", 20] > alike["hiss", 5] > alike["hiss", -5] > chance - 0.1
assert errors["hiss", -5] > clean_error

# %% [markdown]
# How to read it. Above: how much of the clean features is left; the dashed line is two *different* questions, so a curve that
# reaches it has lost everything. Below: the errors in the transcripts; the dashed line is the clean recording. Yellow is what the
# adapter has met in training (where speed and pitch were only ever changed together, as with a tape that runs too fast).
#
# - Look where the upper curves bend and where the lower ones do. A word is right or wrong; a feature is more or less itself, so it
#   can change a good deal before the first word breaks.
# - Compare hiss and people at the same ratio. Hiss covers all bands all the time. People leave gaps, but they *are* words, in the
#   bands and at the pace that the ears were made for.
# - Where the red curve stays below the blue one, the words are still in the features. Our model had some hours of synthetic voices
#   to learn reading them, Whisper's decoder had years of real ones.
# - Speed and pitch stretch the pattern without hiding any of it. Outside the yellow band you see what training did *not* cover,
#   and how far it carries all the same.
#
# Sixteen short questions are a small jury, and the last printed line says what a single word weighs in it: believe the shape of the
# curves and not their wiggles. Notebook 09 measures with more clips and with confidence intervals.
#
# ### Exercise 1.3: mix at a chosen ratio (difficulty 2/5, 10 minutes)
#
# Close your eyes to `noisy` above, and write it: `speech`, `noise` (both `(N,)`, any loudness) and `snr_db` in, the mix out. The
# speech itself must stay as it is.
#
# <details><summary>Hint 1</summary>Power is the mean of the squares. The ratio of two powers in dB is
# <code>10 * log10(p_speech / p_noise)</code>.</details>
# <details><summary>Hint 2</summary>What you multiply is the amplitude, whose square is the power: a factor of
# <code>10 ** (-snr_db / 20)</code>, after noise and speech were brought to the same power.</details>

# %%
my_mix = None                                         # replace me: a function of `speech`, `noise` and `snr_db`
checks.mix_at_snr(my_mix)

# %% [markdown]
# ## 1.5 The same word by three voices
#
# What do the ears keep of a voice, and what of the word? Take four words, each spoken by three voices, somewhere inside different
# questions. If the features of "capital" by one voice resemble "capital" by another more than they resemble "number" by the same
# voice, then they are about words.
#
# To cut the words out we must know *when* they were said. Nobody wrote that down, but Whisper's decoder knows: while it writes a
# word, some of its attention heads look at the moment where the word is spoken. OpenAI publish which heads those are.

# %%
from whisper.model import disable_sdpa
from whisper.tokenizer import get_tokenizer

LOOKING_HEADS = ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))     # (layer, head) of tiny.en
tokenizer = get_tokenizer(multilingual=False)


@torch.no_grad()
def attention(wav, text):
    """Where Whisper looks while it writes each token of `text`: token ids, and (tokens + 1, T) scores."""
    tokens, begin = tokenizer.encode(" " + text), len(tokenizer.sot_sequence)
    ids = torch.tensor([[*tokenizer.sot_sequence, tokenizer.no_timestamps, *tokens, tokenizer.eot]])
    layers = []
    hooks = [block.cross_attn.register_forward_hook(lambda _, inputs, output: layers.append(output[1][0]))
             for block in whisper.decoder.blocks]
    with disable_sdpa():                              # the fused attention does not tell its weights
        whisper.decoder(ids, whisper.encoder(whole.mel(wav)[None]))
    for hook in hooks:
        hook.remove()
    scores = torch.stack([layers[layer][head] for layer, head in LOOKING_HEADS])[:, begin:-1, : len(wav) // 320]
    looks = scores.softmax(-1)
    looks = (looks - looks.mean(1, keepdim=True)) / looks.std(1, keepdim=True)       # compared with the other tokens
    return tokens, F.avg_pool1d(looks.mean(0), 7, 1, 3)

# %% [markdown]
# Such a table of scores, tokens down and time across, asks for a path: words come in order, and each moment belongs to one of
# them. The best path is found by **dynamic programming**: the best way to be at token `i` at time `t` comes from being at token
# `i` (stay) or at token `i - 1` (go on) one moment before. You will meet the same idea as *dynamic time warping* and as *CTC*.

# %%
def first_moments(scores):
    """The moment at which each row of (n, T) scores begins, on the path down the rows with the largest sum."""
    n, T = scores.shape
    best = np.full((n, T), -np.inf)
    stayed = np.ones((n, T), bool)
    best[0] = np.cumsum(scores[0])
    for i in range(1, n):
        for t in range(i, T):
            stayed[i, t] = best[i, t - 1] >= best[i - 1, t - 1]
            best[i, t] = scores[i, t] + max(best[i, t - 1], best[i - 1, t - 1])
    begins, i = [0] * n, n - 1
    for t in range(T - 1, 0, -1):                     # back along the path
        if i and not stayed[i, t]:
            begins[i] = t
            i -= 1
    return begins

# %%
def word_times(wav, text):
    """[(word, begin, end)] in seconds."""
    tokens, scores = attention(wav, text)
    begins = [t / FEATURES_PER_SECOND for t in first_moments(scores.numpy())]
    pieces, parts = tokenizer.split_to_word_tokens(tokens)
    at = np.cumsum([0, *map(len, parts)])
    spoken = [(piece.strip(), begins[i]) for piece, i in zip(pieces, at, strict=False) if any(map(str.isalnum, piece))]
    ends = [begin for _, begin in spoken[1:]] + begins[-1:]            # the comma after a word belongs to it
    return [(word, begin, end) for (word, begin), end in zip(spoken, ends, strict=True)]

# %%
WORDS = ("capital", "opposite", "number", "repeat")
found = {}                                            # (word, voice) -> the first question of that voice with that word
for row in rows:
    for word in set(WORDS) & set(words(row.question).split()):
        found.setdefault((word, row.voice), row)
able = [voice for voice in sorted({row.voice for row in rows}) if all((word, voice) in found for word in WORDS)]
by_engine = {voice.split(":")[0]: voice for voice in able}             # one voice of each speech engine
VOICES = [*by_engine.values(), *(voice for voice in able if voice not in by_engine.values())][:3]
assert len(VOICES) == 3, "three voices that say all four words"

example = found["capital", VOICES[0]]
fig, axes = plt.subplots(2, 1, figsize=(11, 6), sharex=True)
axes[0].imshow(log_mel(example.question_wav), origin="lower", extent=(0, len(example.question_wav) / EAR_RATE, 0, 80))
times = word_times(example.question_wav, example.question)
for i, (word, begin, end) in enumerate(times):
    axes[0].axvline(begin, color="white", lw=1)
    axes[0].text((begin + end) / 2, 71 - 10 * (i % 2), word, ha="center", color="white", fontsize=13)
tokens, scores = attention(example.question_wav, example.question)
names = [tokenizer.decode([token]) for token in tokens] + ["(end)"]
plots.token_map(scores.clamp(min=0), names, 1 / FEATURES_PER_SECOND, axes[1], "where Whisper looks for each token")
plt.show()

# %% [markdown]
# The bright cells run down from the left to the right: that is the decoder reading along. The borders above are only roughly right
# (compare them with the gaps in the spectrogram), but good enough to cut words out. (Notebook 05 uses the same kind of picture to
# see what *our* adapter learnt.)
#
# Now the twelve words. Each is cut out of its question and brought to the same length. Then it is compared with every other one,
# moment by moment, where the two may slip against each other by up to a sixth of their length, as our borders are not exact: once
# as log-mel columns, once as features.

# %%
def cut(frames, mean, per_second, begin, end, length):
    """The rows between two times, centred, read at `length` evenly spaced moments: (T, D) -> (length, D)"""
    a, b = max(0, int((begin - 0.04) * per_second)), int((end + 0.04) * per_second)
    piece = (frames[a : max(a + 2, b)] - mean).T[None]
    return F.interpolate(piece, size=length, mode="linear", align_corners=True)[0].T


pieces = {"log-mel": [], "features": []}
for word in WORDS:
    for voice in VOICES:
        row = found[word, voice]
        wav = row.question_wav
        begin, end = next((b, e) for w, b, e in word_times(wav, row.question) if words(w) == word)
        pieces["log-mel"].append(cut(log_mel(wav).T, mel_mean, 100, begin, end, 24))
        pieces["features"].append(cut(ears.hear(wav)[0], feature_mean, 50, begin, end, 12))

# %% tags=["nbval-check-output"]
def best_match(some):
    """(n, L, D) -> (n, n): mean cosine of each with each, at the best slip of up to L / 6 moments"""
    unit = F.normalize(some, dim=-1)
    L = some.shape[1]
    slipped = [torch.einsum("ald,bld->ab", unit[:, d:], unit[:, : L - d]) / (L - d) for d in range(L // 6 + 1)]
    return torch.stack([*slipped, *(table.T for table in slipped)]).amax(0)


tables = {name: best_match(torch.stack(some)).numpy() for name, some in pieces.items()}
print(", ".join(f"{name} {table.shape}" for name, table in tables.items()))

# %%
i = np.arange(12)
pairs = i[:, None] != i
same_word, same_voice = i[:, None] // 3 == i // 3, i[:, None] % 3 == i % 3
fig, axes = plt.subplots(1, 2, figsize=(12.5, 4.8), sharey=True)
for ax, (name, table) in zip(axes, tables.items(), strict=True):
    shown = ax.imshow(np.where(pairs, table, np.nan), vmin=-0.1, vmax=0.7)         # not each with itself
    for edge in (2.5, 5.5, 8.5):
        ax.axhline(edge, color="white", lw=2)
        ax.axvline(edge, color="white", lw=2)
    labels = [f"{word}, {voice}" for word in WORDS for voice in VOICES]
    ax.set(title=name, xticks=[], yticks=i, yticklabels=labels, xlabel="the same twelve in the same order")
fig.colorbar(shown, ax=axes, label="how alike (cosine)")
plt.show()
means = {}
for name, table in tables.items():
    kinds = (same_word & pairs, same_voice & ~same_word, ~same_voice & ~same_word)
    means[name] = [table[kind].mean() for kind in kinds]
    print(f"{name:9s} same word, other voice {means[name][0]:5.2f};  other word, same voice {means[name][1]:5.2f};  "
          f"nothing in common {means[name][2]:5.2f}")
gaps = {name: same - other for name, (same, other, _) in means.items()}
assert gaps["features"] > max(0.05, gaps["log-mel"])  # for the ears, words count more than voices

# %% [markdown]
# The white lines part the four words; blank is each with itself. Look at the blocks along the diagonal, where three voices say the
# same word in different questions. On the right they stand out from the rest. On the left, in the log-mel columns, they hardly do:
# there, what a voice sounds like is mixed up with what it says, and a voice is often most like itself.
#
# The printed lines say the same in numbers. No match is perfect: in a sentence, no word is ever spoken twice alike. What we want from ears is a large gap between "same word, other voice" and "other
# word, same voice". That gap is what a whole language model hangs on: nobody could train it on every voice of the world.
#
# One more look, without cutting anything: two whole questions by two voices, every moment of one against every moment of the other.
# Both hold the words "is the capital of".

# %%
PHRASE = "is the capital of"
asked = {row.voice.split(":")[0]: row for row in rows if PHRASE in words(row.question)}   # one of each speech engine
one, two = list(asked.values())[:2]


def phrase_times(row):
    """Begin and end of the phrase in a question, in seconds."""
    times = word_times(row.question_wav, row.question)
    i = [words(word) for word, _, _ in times].index("capital")
    return times[i - 2][1], times[i + 1][2]


a, b = (ears.hear(row.question_wav)[0] - feature_mean for row in (one, two))
table = F.normalize(a) @ F.normalize(b).T             # (T_a, T_b)

# %%
fig, ax = plt.subplots(figsize=(9, 6.5))
shown = ax.imshow(table, vmin=-0.1, vmax=0.8, origin="lower", aspect="equal",
                  extent=(0, len(b) / FEATURES_PER_SECOND, 0, len(a) / FEATURES_PER_SECOND))
(a0, a1), (b0, b1) = phrase_times(one), phrase_times(two)
ax.add_patch(plt.Rectangle((b0, a0), b1 - b0, a1 - a0, facecolor="none", edgecolor=plots.RED, lw=3))
ax.set(ylabel=f"{one.voice}\n{one.question[:44]}", xlabel=f"{two.voice}: {two.question[:60]}",
       title=f'red: both say "{PHRASE}"')
fig.colorbar(shown, label="how alike (cosine)")
plt.show()

# %% [markdown]
# Where both say the same, a bright path runs through the box: moment for moment the one sounds like the other, and its slope tells
# who speaks faster. Other places may match too (find their words with the questions on the axes), and a broad faint band runs along
# the whole diagonal: the ears also mark how far into their window a moment lies.
#
# ### Exercise 1.4: centred cosine (difficulty 2/5, 8 minutes)
#
# Write the comparison that this notebook uses all the time: `a` and `b` of shape `(T, D)` and the mean feature `(D,)` in, the
# cosine of the two at every moment out, `(T,)`.
#
# <details><summary>Hint 1</summary>The cosine is the dot product divided by both lengths.</details>
# <details><summary>Hint 2</summary>Sums over the last axis: <code>(x * y).sum(-1)</code>, and <code>x.norm(dim=-1)</code>.</details>

# %%
my_cosine = None                                      # replace me: a function of `a`, `b` and `mean`
checks.centred_cosine(my_cosine)

# %% [markdown]
# ## What you have seen
#
# - 16,000 numbers a second become 100 columns, 50 features, 12.5 positions: a question of two seconds costs the language model
#   no more than a long sentence.
# - The features keep words and let go of voices; the log-mel columns do not.
# - Robustness is a curve, not a property. It has an end, and you have seen where.
# - A frozen part is only as good as its window: train and listen in the same way.
#
# ## What next
#
# - Record yourself (16 kHz or anything else) and put your own voice into 1.5: `load_question("me.wav")`.
# - The ears heard a mel spectrogram cut to the question. What if you cut 0.1 s too early? Make `TAIL_SAMPLES` of `omni_lite.hear`
#   smaller, and look at the last word.
# - Which of the four encoder blocks brings the voices together? Repeat 1.5 with the features after each block.
# - [02 Speaking](02_speaking.ipynb): the other end of the model.
