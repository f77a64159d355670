# %% [markdown]
# # 08 · Streaming: when does the first sound arrive?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/08_streaming.ipynb)
#
# Somebody asks. For how long is it silent before the model talks? At the end of this notebook you can say, in
# milliseconds and for your own machine, what that silence is made of; why a model that talks while it thinks is
# quicker than the same model that thinks first; what the second row of batch-parallel decoding costs and brings; and
# how sound that is made piece by piece stays free of clicks.
#
# - **Needs** only committed files: the `lite` weights, the subset of the data, one recorded question. A GPU is used
#   if there is one.
# - **Takes** TIME.
# - **Builds on** the eight delayed rows (notebook 03) and the codec (02); it runs without them.

# %%
import sys

if "google.colab" in sys.modules:            # on your own machine: `make lab`
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
from statistics import median
from time import perf_counter

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, display
from torch import Tensor

from omni_lite import checks, plots
from omni_lite.assistant import ROOT, Assistant
from omni_lite.audio import load_question
from omni_lite.data import read_rows
from omni_lite.fast import FastDecoder
from omni_lite.generate import Logits, Sampling, SlowDecoder, choose, generate, sample
from omni_lite.streams import Rows, Task, prompt, undelay_streams
from omni_lite.vocab import CODEC_RATE, FRAME_SAMPLES, FRAME_SECONDS, NUM_STREAMS
from omni_lite.widgets import player

plots.use_style()

# %% [markdown]
# One assistant for each device that is here. Everything below runs on all of them, and says what it found.

# %%
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
assistants = {device: Assistant.load(device=device) for device in DEVICES}
for one in assistants.values():
    one.warm_up()                            # the first answer pays for set-up, which is not what we measure
assistant = assistants["cpu"]
model, codec, vocab = assistant.model, assistant.codec, assistant.model.config.vocab
wav_16k = load_question(ROOT / "data" / "audio" / "question.wav")
gpu = torch.cuda.get_device_name() if "cuda" in DEVICES else "none"
print(f"CPU threads: {torch.get_num_threads()}, GPU: {gpu}, the question lasts {len(wav_16k) / 16_000:.2f} s")

# %% [markdown]
# ## 8.1 Nine choices, and a stopwatch
#
# After the question's last sample, four things have to happen before a loudspeaker can move:
#
# 1. **hear**: Whisper's encoder turns the question into features,
# 2. **prompt**: the language model reads the whole question at once and remembers it (its *cache* of keys and
#    values),
# 3. **steps**: one step after the other chooses eight tokens, until the first frames are complete,
# 4. **codec**: complete frames become samples.
#
# **Guess first.** Which of the four takes longest? And why should there be *nine* choices before the first sound, and
# not one?
#
# Stream *i* starts *i* + 1 steps after the text, so frame 0 has its seventh token at step 7, which is the eighth
# choice. Our codec looks one frame ahead: frame 0 alone gives it a few samples only, and the first useful chunk comes
# with frame 1, at step 8. Here is the whole way by hand, with a stopwatch that waits for the GPU where there is one:
# a GPU takes its orders at once and does the work later.

# %%
class Stopwatch:
    """Milliseconds of one stage after the other; of work done, not of work handed over."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.ms = device, {}
        self.last = self.now()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * perf_counter()

    def lap(self, stage: str) -> None:
        now = self.now()
        self.ms[stage] = self.ms.get(stage, 0.0) + now - self.last
        self.last = now


# %%
@torch.inference_mode()
def first_sound(assistant: Assistant, decoder) -> tuple[dict[str, float], list[list[int]], Tensor]:
    """The way to the first sound by hand: ms of each stage, the ids said on the way (9, 7), and the samples."""
    watch, vocab, device = Stopwatch(assistant.device), assistant.model.config.vocab, assistant.device
    features = assistant.hear(wav_16k)
    watch.lap("hear")
    rows = prompt(vocab, Task.A1A2, positions=assistant.model.asr_adapter.num_positions(features.shape[1]))
    rows = Rows(rows.text.to(device), rows.audio.to(device))
    logits = decoder.prefill(rows, features, speaks=True, batch_parallel=True)
    watch.lap("prompt")
    said, writing = [], True
    for step in range(NUM_STREAMS + 2):                          # 0 .. 8: frame 0 ends at step 7, frame 1 at step 8
        text_id, drawn = choose(vocab, logits, Sampling())
        watch.lap("choose")
        writing = writing and text_id != vocab.eot
        said.append([drawn[i] if step > i else vocab.pad_a for i in range(NUM_STREAMS)])
        if len(said) < NUM_STREAMS + 2:
            logits = decoder.step(text_id, said[-1], writes=writing)
            watch.lap("steps")
    codes = undelay_streams(torch.tensor(said).T)[None]          # (1, 7, 2)
    pcm = assistant.codec.stream().push(codes.to(device))[0, 0].cpu()
    watch.lap("codec")
    return watch.ms, said, pcm


# %% [markdown]
# The library does the same in `generate`, which yields every step as soon as it is known. Is it really the same?

# %%
ms, said, pcm = first_sound(assistant, SlowDecoder(model))
steps = []
for step in assistant.ask(wav_16k, sampling=Sampling()):          # temperature 0: always the most likely token
    steps.append(step)
    if step.pcm is not None:
        break
assert [step.tokens.tolist() for step in steps] == said
np.testing.assert_allclose(steps[-1].pcm, pcm, atol=1e-4)
print({stage: round(one, 1) for stage, one in ms.items()})

# %% tags=["nbval-check-output"]
print(f"first sound at step {steps[-1].index}, {len(steps[-1].pcm)} samples, after {len(steps)} choices")

# %% [markdown]
# One run says little on a busy machine. The median of several says more. `SlowDecoder` is the readable path;
# `FastDecoder` (`fast.py`) computes the same with fused weights and a cache that is written in place, in 32, 16 or
# (on a CPU) 8 bits. On a GPU it records one step as a **CUDA graph**: hundreds of small orders become a single one,
# which is what a model this size waits for.

# %%
decoders = {}
for device, one in assistants.items():
    decoders[f"{device}, readable"] = (one, SlowDecoder(one.model))
    for precision in ("fp32", "bf16", "int8") if device == "cpu" else ("fp32", "bf16"):
        graph = " graph" if device == "cuda" else ""
        decoders[f"{device}, fast {precision}{graph}"] = (one, FastDecoder(one.model, precision, context=512))


def budget(assistant: Assistant, decoder, repeats: int = 7) -> dict[str, float]:
    """Median ms of each stage; the first run warms up and is not counted."""
    runs = [first_sound(assistant, decoder)[0] for _ in range(repeats)][1:]
    return {stage: median(run[stage] for run in runs) for stage in runs[0]}


budgets = {name: budget(*pair) for name, pair in decoders.items()}
for name, stages in budgets.items():
    print(f"{name:24s}", "  ".join(f"{stage} {one:6.2f}" for stage, one in stages.items()), " ms")

# %%
plt.figure(figsize=(11, 1.2 + 0.7 * len(budgets)))
plots.stacked_bars(budgets)
plt.title("from the question's end to the first sound", pad=34)
plt.show()

# %% [markdown]
# Read it like a bill. Hearing costs the same in every line of one device, because no decoder changes Whisper. Reading
# the prompt is *one* pass over all its positions; the eight steps after it are eight passes over one position each,
# and still they cost more: every pass has to read all weights from memory once, however few positions it serves. That
# is the price of the delay, and it is why `fast.py` has something to win.
#
# The bill is for a question of this length. Ask yourself which bars would grow for a question of ten seconds (`hear`
# and `prompt`), and which would not (`steps` and `codec`). A longer *answer* changes none of them: that is what
# streaming means.

# %%
@torch.inference_mode()
def first_logits(assistant: Assistant, decoder) -> Logits:
    """What the model thinks right after the question."""
    features = assistant.hear(wav_16k)
    rows = prompt(vocab, Task.A1A2, positions=assistant.model.asr_adapter.num_positions(features.shape[1]))
    rows = Rows(rows.text.to(assistant.device), rows.audio.to(assistant.device))
    return decoder.prefill(rows, features, speaks=True, batch_parallel=True)


readable = first_logits(*decoders["cpu, readable"])
for name, pair in decoders.items():
    logits = first_logits(*pair)
    pairs = (logits.text, readable.text), (logits.audio, readable.audio)
    off = max(float((one.float().cpu() - other).abs().max()) for one, other in pairs)
    print(f"{name:24s} largest difference of a logit {off:.1e}")
    if name == "cpu, fast fp32":
        assert off < 1e-2                    # rounding, nothing else
assert set(budgets["cpu, readable"]) == {"hear", "prompt", "choose", "steps", "codec"}

# %% [markdown]
# In 32 bits the fast path says the same up to rounding. In 16 and 8 bits it says *about* the same: good enough to
# talk, not to compare two models by the third decimal.

# %% [markdown]
# ## 8.2 Does it keep up?
#
# The first sound is one question, the rest of the answer is another. A frame lasts 85.3 ms. If making a frame takes
# longer than hearing it, the loudspeaker sooner or later runs dry.
#
# **Guess first.** How many times slower could this machine be before you hear a gap?

# %%
rows = {name: read_rows([ROOT / "data" / "subset" / f"dev_{name}.parquet"]) for name in ("voices", "facts")}
clips = rows["voices"] + rows["facts"]                            # held out: none of these was ever trained on
long_row = max(clips, key=lambda row: len(row.answer))            # the longest answer of these sets
print(f"{len(clips)} clips; the one with the longest answer asks: {long_row.question!r}")


def watched(answer, began: float) -> list[tuple[float, str, int]]:
    """(seconds since `began`, text, samples) of every step."""
    return [(perf_counter() - began, step.text, 0 if step.pcm is None else len(step.pcm)) for step in answer]


trace = watched(assistant.ask(long_row.question_wav), perf_counter())
at = np.array([when for when, _, _ in trace])
step_ms = 1000 * np.diff(at, prepend=0.0)

# %%
plt.figure(figsize=(11, 3.6))
plt.bar(range(1, len(step_ms)), step_ms[1:], color=plots.ORANGE, label="time of a step, its sound included")
plt.axhline(1000 * FRAME_SECONDS, color=plots.BLACK, ls="--", label=f"a frame lasts {1000 * FRAME_SECONDS:.1f} ms")
plt.xlabel("step of the answer (step 0, with the hearing, is left out)")
plt.ylabel("ms")
plt.legend(loc="center right")
plt.show()

# %% [markdown]
# What lies between a bar and the dashed line is time gained: sound that is ready before anybody needs it. The first
# few bars are the lowest, because no frame is complete yet and the codec has nothing to do. Then the bars are a
# little higher while the text row still writes, since two rows are computed; once the text has ended, one is enough.
#
# Now a player in five lines. It starts as soon as the first chunk is there; a chunk that comes too late leaves a gap.
# Then we pretend that this machine is 2, 5, 10 ... times slower by stretching the measured times.

# %%
ready_s = np.array([when for when, _, samples in trace if samples])
lengths_s = np.array([samples / CODEC_RATE for _, _, samples in trace if samples])


def silence_heard(ready_s, lengths_s, start_s: float) -> float:
    """Seconds of gaps that a listener hears when playing begins at `start_s`."""
    clock, gaps = start_s, 0.0
    for ready, length in zip(ready_s, lengths_s, strict=True):
        gaps += max(0.0, ready - clock)
        clock = max(clock, ready) + length
    return gaps


factors = np.geomspace(1, 60, 60)
gaps_s = np.array([silence_heard(ready_s * f, lengths_s, ready_s[0] * f) for f in factors])
still = factors[gaps_s < 0.01].max(initial=1.0)                   # the slowest machine without a gap
assert (np.diff(gaps_s) > -1e-9).all()                            # slower never sounds better

# %%
plt.figure(figsize=(9, 3.6))
plt.plot(factors, gaps_s, color=plots.RED)
plt.axvline(still, color=plots.GREY, ls="--")
plt.xscale("log")
plt.xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
plt.xlabel("how many times slower than this machine")
plt.ylabel("seconds of gaps heard")
plt.show()
print(f"no gap up to about {still:.1f} times slower")

# %% [markdown]
# Left of the dashed line nothing is heard of the slowness, only the start comes later. Right of it the gaps grow
# without end, because every frame comes later than the one before. Between "quick enough" and "too slow" there is no
# gentle slope. What could a player do on the right side? It could wait before it starts.
#
# ### Exercise 1: the patient player (difficulty 2 of 5, 10 minutes)
#
# Write `my_start_delay(ready_s, lengths_s)`: how many seconds to wait after the first chunk is there, as few as
# possible, so that no gap is ever heard. `ready_s` are the moments at which the chunks are there, `lengths_s` how
# long each of them plays.
#
# <details><summary>Hint 1</summary>When is it chunk <i>i</i>'s turn? After all chunks before it have been
# played.</details>
# <details><summary>Hint 2</summary>For each chunk: how long after the first was it ready, and how long after the
# start is its turn? The largest difference decides, and it may be negative.</details>

# %%
my_start_delay = None                        # replace me: def my_start_delay(ready_s, lengths_s): ...
checks.start_delay(my_start_delay)

# %% [markdown]
# ## 8.3 Three ways to answer
#
# The same weights can answer in three ways, since one model has learnt all five tasks:
#
# | way | what is done, one after the other | tasks |
# |---|---|---|
# | cascade | transcribe, think in text, speak the text | A1T1, then T1T2, then T1A2 |
# | sequential | think in text straight from the sound, then speak | A1T2, then T1A2 |
# | parallel | talk while thinking | A1A2 |
#
# A cascade is how most voice assistants are built: a recogniser, a language model, a speech synthesiser. Here all
# three stages are our own model, so the comparison is fair: only the order of the work differs.
#
# **Guess first.** By what factor will the first sound of the cascade be later than that of the parallel way: 1.5, 2,
# or 5?
#
# For the last stage of the first two ways the model must say words that are decided already. A *decoder* (what
# `generate` asks for logits) that knows the words does it: it lets the model compute everything, and then writes the
# text row itself.

# %%
class Reading(SlowDecoder):
    """A decoder that knows the words: the text row is given, only the voice is the model's own."""

    def __init__(self, model, words: list[int]) -> None:
        super().__init__(model)
        self.words = [*words, model.config.vocab.eot]

    def dictate(self, logits: Logits) -> Logits:
        if logits.text is not None:
            logits.text = torch.full_like(logits.text, -torch.inf)
            logits.text[self.words.pop(0)] = 0.0
        return logits

    def prefill(self, *args, **how) -> Logits:
        return self.dictate(super().prefill(*args, **how))

    def step(self, *args, **how) -> Logits:
        return self.dictate(super().step(*args, **how))


# %%
def speak(text: str):
    """Say just this: one row that reads, since nothing is left to think about."""
    words, request = (assistant.tokenizer.encode(one).ids for one in (text, f"Repeat after me: {text}"))
    return generate(model, codec, task=Task.T1A2, text=request, batch_parallel=False, sampling=assistant.sampling,
                    limit=assistant.frames, decode_text=assistant.decode, decoder=Reading(model, words))


# %% [markdown]
# A `Story` runs stages and writes down what happened when.

# %%
class Story:
    """What happened when, in seconds since the question's end: the model's work, words, sound."""

    def __init__(self) -> None:
        self.began, self.spans, self.words_s, self.sound_s, self.steps = perf_counter(), [], [], None, 0

    def run(self, what: str, answer) -> str:
        """One stage from its first step to its last; returns its text."""
        begin, text, samples = perf_counter() - self.began, "", 0
        for step in answer:
            text += step.text
            self.steps += self.sound_s is None                   # steps of the model before the first sound
            if step.text.strip() and what.startswith("think"):
                self.words_s.append(perf_counter() - self.began)
            if step.pcm is not None:
                first = self.sound_s[0] if self.sound_s else perf_counter() - self.began
                samples += len(step.pcm)
                self.sound_s = (first, samples / CODEC_RATE)
        self.spans.append((what, begin, perf_counter() - self.began))
        return text.strip()


# %%
def cascade(question: Tensor) -> Story:
    """Transcribe to the end, think to the end, then speak."""
    story = Story()
    heard = story.run("transcribe", assistant.ask(question, Task.A1T1))
    text = story.run("think in text", assistant.ask(heard, Task.T1T2))
    story.run("speak", speak(text))
    return story


def sequential(question: Tensor) -> Story:
    """Think to the end, then speak."""
    story = Story()
    story.run("speak", speak(story.run("think in text", assistant.ask(question, Task.A1T2))))
    return story


def parallel(question: Tensor) -> Story:
    """Speak while thinking."""
    story = Story()
    story.run("think and speak", assistant.ask(question))
    return story


WAYS = {"cascade": cascade, "sequential": sequential, "parallel": parallel}
stories = {way: tell(long_row.question_wav) for way, tell in WAYS.items()}

# %%
fig, (upper, lower) = plt.subplots(2, 1, figsize=(11, 7))
told = {way: vars(story) for way, story in stories.items()}
plots.timeline(told, upper)
plots.timeline(told, lower).get_legend().remove()
lower.set_xlim(0, 1.3 * stories["cascade"].sound_s[0])
lower.set_title("the same, only its beginning")
plt.show()

# %% [markdown]
# The upper lane of each way is the model's work, every tick a word that has appeared; the lower lane is what a
# listener hears. The whole answer takes about the same work in all three. What differs is the silence before it: the
# cascade finishes two texts before it opens its mouth, the sequential way one, and the parallel way speaks as soon as
# the delay allows. In the lower picture look at the ticks of the parallel way: words stand there *before* the first
# sound. The text runs ahead of the voice, and the voice needs that lead to know what to say.

# %%
for way, story in stories.items():
    print(f"{way:12s} {story.steps:3d} steps of the model before the first sound, {1000 * story.sound_s[0]:6.0f} ms")
assert stories["parallel"].steps == len(steps)                    # the delay, and nothing else
assert stories["parallel"].steps < stories["sequential"].steps < stories["cascade"].steps

# %% [markdown]
# The order of these three numbers depends on no machine: the parallel way needs the steps of the delay, the others
# need them *and* the steps of one or two texts. One answer is one answer, so here are more of them:

# %%
asked = clips[::5][:8]
firsts = {way: [1000 * tell(row.question_wav).sound_s[0] for row in asked] for way, tell in WAYS.items()}
plt.figure(figsize=(9, 3))
for y, (way, values) in enumerate(firsts.items()):
    plt.plot(values, [y] * len(values), "o", color=plots.BLUE, alpha=0.5, ms=9)
    plt.plot(median(values), y, "|", color=plots.RED, ms=34, mew=4)
    print(f"{way:12s} first sound after {median(values):5.0f} ms (median of {len(values)} questions)")
plt.yticks(range(len(firsts)), list(firsts))
plt.ylim(2.5, -0.5)
plt.xlim(0, None)
plt.xlabel("ms to the first sound, one dot a question; red: the median")
plt.show()

# %% [markdown]
# Our answers are short, a handful of words, and our model is small. Both make the cascade look better than it is. The
# time to the first sound is nearly a straight line in the number of tokens that have to be finished before:
#
# *first sound = hearing and prompt + (tokens to finish + 9) x time of a step*
#
# Below, two sliders move the time of a step (the paper's model has many times our parameters) and the length of the
# answer.

# %%
def draw_waits(step_ms: float = 60, tokens: int = 30) -> None:
    """First sound of the three ways, if a step takes `step_ms` and the answer has so many tokens (the question: 10)."""
    n = np.arange(1, 101)
    ahead = {"cascade": lambda n: 10 + 1 + n + 1, "sequential": lambda n: n + 1, "parallel": lambda n: 0 * n}
    plt.figure(figsize=(9, 3.6))
    for color, (way, steps) in zip((plots.GREY, plots.ORANGE, plots.GREEN), ahead.items(), strict=True):
        wait_s = (steps(tokens) + 9) * step_ms / 1000
        plt.plot(n, (steps(n) + 9) * step_ms / 1000, color=color, label=f"{way}: {wait_s:.1f} s")
        plt.plot(tokens, wait_s, "o", color=color, ms=9)
    plt.axhline(0.2, color=plots.BLACK, lw=1, ls="--", label="a pause between people: 0.2 s")
    plt.xlabel("tokens of the answer's text")
    plt.ylabel("s to the first sound")
    plt.legend(loc="upper left", title=f"a step takes {step_ms:g} ms, {tokens} tokens")
    plt.show()


draw_waits()

# %%
def show_control(widget, sentence: str) -> None:
    """A control where there is a kernel; one sentence for whoever reads without one."""
    display(widget._repr_mimebundle_() | {"text/plain": sentence, "text/html": f"<em>{sentence}</em>"}, raw=True)


show_control(ipywidgets.interactive(draw_waits, step_ms=(5, 200, 5), tokens=(1, 100)),
             "Here are two sliders when this notebook is run; the picture above is one of their positions.")

# %% [markdown]
# People answer each other after about a fifth of a second (Stivers and others, 2009, measured it in ten languages).
# Only the flat green line can come near it for an answer of any length; that is the whole point of talking while
# thinking.

# %% [markdown]
# ## 8.4 Two rows: one speaks, one thinks
#
# Speaking and thinking at once may harm the thinking: the row that speaks has its mind full of sound. The paper's
# remedy, *batch-parallel decoding*, runs the same question as two rows. Row 0 shall speak (A1A2), row 1 shall only
# write (A1T2). The words are taken from row 1 and fed to **both** rows; the sound is taken from row 0 and fed to row
# 0 alone.
#
# **Guess first.** How much does the second row cost: twice the time, or less?
#
# First by hand, in the slowest and plainest way: no cache; at every step both sequences are run again from their very
# beginning.

# %%
@torch.inference_mode()
def two_rows_by_hand(features: Tensor, count: int) -> list[tuple[int, list[int]]]:
    """The first (text id, seven audio ids): row 0 speaks, row 1 writes."""
    positions = model.asr_adapter.num_positions(features.shape[1])
    asked = [prompt(vocab, task, positions=positions) for task in (Task.A1A2, Task.A1T2)]
    text, audio = (torch.stack([getattr(row, name) for row in asked]) for name in ("text", "audio"))
    said = []
    for step in range(count):
        text_logits, audio_logits = model(text, audio, features.expand(2, -1, -1))
        word = text_logits[1, -1, : vocab.eot + 1].argmax()                     # row 1 thinks
        drawn = audio_logits[0, :, -1, : vocab.codebook].argmax(-1)             # row 0 speaks
        drawn[torch.arange(NUM_STREAMS) >= step] = vocab.pad_a                  # streams whose turn has not come
        said.append((int(word), drawn.tolist()))
        silent = torch.full_like(drawn, vocab.pad_a)
        text = torch.cat([text, word.expand(2, 1)], dim=1)
        audio = torch.cat([audio, torch.stack([drawn, silent])[..., None]], dim=2)
    return said


# %%
features = assistant.hear(long_row.question_wav)
by_hand = two_rows_by_hand(features, 6)
answer = assistant.ask(features, sampling=Sampling())
library = [(step.text_id, step.tokens.tolist()) for step, _ in zip(answer, range(6), strict=False)]
answer.close()
assert by_hand == library
print("six steps of two rows, by hand and by the library: the same ids")

# %% [markdown]
# ### Exercise 2: what goes into the next step (difficulty 2 of 5, 10 minutes)
#
# Write `my_two_rows(text_id, audio_ids, pad_a)`: the inputs of the next step for both rows, as two tensors of int64:
# the text ids `(2, 1)` and the audio ids `(2, 7, 1)`.
#
# <details><summary>Hint</summary>Both rows get the same text. Row 0 hears what it said itself. What does a row hear
# that only writes? Look at <code>silent</code> above.</details>

# %%
my_two_rows = None                           # replace me: def my_two_rows(text_id, audio_ids, pad_a): ...
checks.two_rows(my_two_rows)

# %% [markdown]
# Does it help? For every clip three texts: written alone (A1T2, nobody speaks), with two rows, and with one row that
# has to do both. We stop each answer at the end of its text. Note what must come out: row 1 of two rows sees exactly
# what A1T2 sees, so the first two texts are the same *by construction*, as far as the voice lasts.

# %%
def text_of(features: Tensor, **how) -> str:
    """Only the words of an answer: the model is stopped when its text has ended."""
    text = ""
    for step in assistant.ask(features, limit=40, sampling=Sampling(), **how):
        text += step.text
        if step.text_id == vocab.eot:
            break
    return text


heard = [assistant.hear(row.question_wav) for row in clips]
texts = {
    "A1T2, written only": [text_of(one, task=Task.A1T2) for one in heard],
    "A1A2, two rows": [text_of(one) for one in heard],
    "A1A2, one row": [text_of(one, batch_parallel=False) for one in heard],
}
wanted = [row.answer for row in clips]
right = {way: np.array([a == b for a, b in zip(some, wanted, strict=True)]) for way, some in texts.items()}
for way, marks in right.items():
    print(f"{way:20s} {marks.sum():3d} of {len(marks)} answers are exactly right")
pairs = zip(texts["A1T2, written only"], texts["A1A2, two rows"], strict=True)
assert sum(not a.startswith(b) for a, b in pairs) <= 2            # rounding may turn a near tie; nothing else can

# %%
two, one_row = right["A1A2, two rows"], right["A1A2, one row"]
groups = {"both right": (two & one_row).sum(), "only two rows right": (two & ~one_row).sum(),
          "only one row right": (~two & one_row).sum(), "both wrong": (~two & ~one_row).sum()}
fig, ax = plt.subplots(figsize=(9, 3))
ax.barh(list(groups), list(groups.values()), color=[plots.GREY, plots.GREEN, plots.RED, plots.GREY])
for y, count in enumerate(groups.values()):
    ax.text(count + 0.2, y, int(count), va="center")
ax.set(xlabel=f"clips, of {len(clips)}", ylim=(3.6, -0.6))
plt.show()
assert sum(groups.values()) == len(clips)

# %% [markdown]
# The two coloured bars are the ones to look at: clips about which the two ways disagree. Where green is clearly
# longer than red, thinking in a row of its own helps. With so few clips a difference of two or three is chance
# (notebook 09 shows how to tell). The paper introduces the second row because its model, which had learnt far more
# from text than from speech, reasons better in text alone. Whether that holds for a small model that learnt all its
# tasks side by side is not clear beforehand: the bars above are the answer for these weights. Here is one
# disagreement, if there is any:

# %%
for row, a, b in zip(clips, texts["A1A2, two rows"], texts["A1A2, one row"], strict=True):
    if a != b:
        print(f"asked     {row.question}\nwanted    {row.answer}\ntwo rows  {a}\none row   {b}")
        break
else:
    print("no disagreement on these clips")

# %% [markdown]
# And the cost? Here is the time of a step while the text is being written (afterwards the second row is dropped, and
# costs nothing).

# %%
def writing_ms(assistant: Assistant, decoder, batch_parallel: bool) -> float:
    """Median ms of a step that writes and speaks, without the codec."""
    times, last = [], None
    for _ in range(4):
        for step in generate(assistant.model, None, task=Task.A1A2, features=features, batch_parallel=batch_parallel,
                             sampling=Sampling(), decoder=decoder, limit=12):
            now = perf_counter()
            if step.index and step.text_token is not None:
                times.append(1000 * (now - last))
            last = now
    return median(times)


costs = {name: [writing_ms(*pair, batch_parallel=both) for both in (False, True)] for name, pair in decoders.items()}
plt.figure(figsize=(10, 1 + 0.6 * len(costs)))
for y, (name, (single, double)) in enumerate(costs.items()):
    plt.barh(y - 0.17, single, 0.32, color=plots.SKY, label="one row" if y == 0 else None)
    plt.barh(y + 0.17, double, 0.32, color=plots.BLUE, label="two rows" if y == 0 else None)
    print(f"{name:24s} {single:6.2f} ms with one row, {double:6.2f} ms with two: {double / single:.2f} times")
plt.yticks(range(len(costs)), list(costs))
plt.ylim(len(costs) - 0.5, -0.5)
plt.xlabel("ms a step")
plt.legend()
plt.show()

# %% [markdown]
# Two rows cost far less than twice one row: the weights are read once and serve both. That is why batch-parallel
# decoding is nearly free, and the reason behind the paper's choice.

# %% [markdown]
# ## 8.5 How much sound at once?
#
# The codec may be given one frame at a time, or several together. The released code waits for four.
#
# **Guess first.** With four frames in a chunk, how many steps later comes the first sound? And what is won?

# %%
CHUNKS = (1, 2, 4, 8)
first_at, first_ms = {}, {}
for chunk_frames in CHUNKS:
    times = []
    for _ in range(5):
        began, answer = perf_counter(), assistant.ask(features, sampling=Sampling(), chunk_frames=chunk_frames)
        step = next(step for step in answer if step.pcm is not None)
        times.append(1000 * (perf_counter() - began))
        answer.close()
    first_at[chunk_frames], first_ms[chunk_frames] = step.index, median(times)

# %% tags=["nbval-check-output"]
print("frames in a chunk -> step of the first sound:", first_at)

# %% [markdown]
# One frame or two makes no difference, since our codec needs the second to finish the first. After that every further
# frame is one step more.
#
# What is won is work. Every call of the codec has a fixed cost, whatever it decodes. For the codec alone we take
# codes that are surely good: those of a real answer of the data set, spoken by the data set's own voice.

# %%
candidates = [row for row in clips if row.codes is not None and row.codes.shape[1] < 32]
spoken = max(candidates, key=lambda row: row.codes.shape[1])
codes = spoken.codes[None]                                        # (1, 7, T)
whole = codec.decode(codes)
print(f"{spoken.answer!r}: {codes.shape[-1]} frames, {codes.shape[-1] * FRAME_SECONDS:.2f} s")


def streamed(codes: Tensor, chunk_frames: int) -> tuple[Tensor, float]:
    """The sound, made chunk by chunk, and the ms that the codec worked for it."""
    stream, began = codec.stream(), perf_counter()
    pieces = [stream.push(piece) for piece in codes.split(chunk_frames, dim=-1)]
    pieces.append(stream.flush())
    return torch.cat(pieces, dim=-1), 1000 * (perf_counter() - began)


work = {}
for chunk_frames in CHUNKS:
    runs = [streamed(codes, chunk_frames) for _ in range(5)]
    torch.testing.assert_close(runs[0][0], whole, rtol=0, atol=1e-4)            # the very same sound
    work[chunk_frames] = median(ms for _, ms in runs) / (codes.shape[-1] * FRAME_SECONDS)

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6))
labels = ("ms to the first sound", "ms of the codec's work\nfor a second of sound")
for ax, values, label in zip(axes, (first_ms, work), labels, strict=True):
    ax.bar([str(n) for n in CHUNKS], [values[n] for n in CHUNKS], color=plots.SKY)
    for x, n in enumerate(CHUNKS):
        ax.text(x, values[n], f"{values[n]:.0f}", ha="center", va="bottom")
    ax.set(xlabel="frames in a chunk", ylabel=label)
plt.show()

# %% [markdown]
# On the left the price of larger chunks, on the right the gain. The right bars are milliseconds of work for a
# thousand milliseconds of sound: as long as they are a small part of that, one frame and the earliest sound are the
# best bargain. With a heavier codec such as SNAC, or on a GPU, where small calls are mostly waiting, it may be two to
# four frames.
#
# The check in the cell above is worth a second look: *every* chunk size gave the same sound, sample for sample, as
# decoding everything at once. That does not come by itself.

# %% [markdown]
# ## 8.6 Seams
#
# The simplest way to decode in chunks is to decode each chunk alone and to put the pieces side by side. The released
# code does that, four frames at a time.
#
# **Guess first.** What do you expect to hear where two pieces meet?

# %%
@torch.inference_mode()
def in_pieces(codes: Tensor, size: int, left: int = 0, right: int = 0) -> Tensor:
    """Decode `size` frames at a time, with `left` frames before and `right` after them whose sound is thrown away."""
    T, pieces = codes.shape[-1], []
    for first in range(0, T, size):
        last = min(first + size, T)
        begin, end = max(0, first - left), min(T, last + right)
        wav = codec.decode(codes[..., begin:end])
        pieces.append(wav[..., (first - begin) * FRAME_SAMPLES : (last - begin) * FRAME_SAMPLES])
    return torch.cat(pieces, dim=-1)


alone = in_pieces(codes, 4)
off = (alone - whole)[0, 0].abs().numpy()
seams = np.arange(4, codes.shape[-1], 4) * FRAME_SAMPLES          # samples where two pieces meet
loudest = seams[np.argmax([off[max(0, s - 600) : s + 600].max() for s in seams])]
assert off.max() > 10 * (streamed(codes, 4)[0] - whole).abs().max()

# %%
fig, (wave, picture_1, picture_2) = plt.subplots(3, 1, figsize=(11, 9))
span = slice(loudest - 700, loudest + 700)
times = 1000 * np.arange(span.start, span.stop) / CODEC_RATE
wave.plot(times, whole[0, 0, span], color=plots.GREY, lw=4, label="decoded as a whole, or streamed")
wave.plot(times, alone[0, 0, span], color=plots.RED, lw=1.5, label="four frames at a time, each chunk alone")
wave.axvline(1000 * loudest / CODEC_RATE, color=plots.BLACK, ls="--", lw=1)
wave.set(xlabel="ms", title="around one seam")
wave.legend(loc="upper right")
for ax, wav, name in ((picture_1, whole, "as a whole"), (picture_2, alone, "each chunk alone")):
    plots.spectrogram(wav[0, 0].numpy(), CODEC_RATE, ax)
    ax.vlines(seams / CODEC_RATE, 0, 8000, color="white", ls=":", lw=1)
    ax.set_title(name)
plt.show()

# %% [markdown]
# In the upper picture the red line leaves the grey one before the seam (it does not know what comes) and is wrong
# after it (it has forgotten what was): the voice nearly dies away and has to rise again. In the spectrograms look
# along the dotted lines, and only where they cross a sounding word: there a thin stroke stands over the whole range
# of pitch. All frequencies at once for an instant, that is a click; one at every seam makes the voice rough. Hear
# both:

# %%
players = {"as a whole": whole, "each chunk of four frames alone": alone}
HTML("<table>" + "".join(f"<tr><td>{name}</td><td>{player(wav[0, 0].numpy(), CODEC_RATE)}</td></tr>"
                         for name, wav in players.items()) + "</table>")

# %% [markdown]
# A piece needs its neighbours: **context**. How much? The decoder is a stack of convolutions, and each of them looks
# a few columns back and (some of them) a column ahead. Adding them up from the constants in `codec.py`:

# %%
from omni_lite.codec import HOP, KERNEL, STAGE_1_LOOKAHEAD, STAGE_2_LOOKAHEAD, WINDOW

back = sum(KERNEL - 1 - ahead for ahead in STAGE_1_LOOKAHEAD) * 2 * HOP       # columns of 512 samples
back += sum(KERNEL - 1 - ahead for ahead in STAGE_2_LOOKAHEAD) * HOP          # columns of 256 samples
back += WINDOW // 2                                                           # the inverse STFT's overlapping windows
ahead = sum(STAGE_1_LOOKAHEAD) * 2 * HOP + sum(STAGE_2_LOOKAHEAD) * HOP + WINDOW // 2
LEFT, RIGHT = -(-back // FRAME_SAMPLES), -(-ahead // FRAME_SAMPLES)           # in whole frames, rounded up

# %% tags=["nbval-check-output"]
print(f"a sample depends on {back} samples before it and {ahead} after it")
print(f"context: {LEFT} frames before, {RIGHT} after")

# %%
def error(left: int, right: int) -> float:
    """The largest error of a sample in chunks of four frames with so much context."""
    return float((in_pieces(codes, 4, left, right) - whole).abs().max())


errors = {right: [error(left, right) for left in range(LEFT + 2)] for right in (0, RIGHT)}
plt.figure(figsize=(9, 3.8))
for right, color in zip(errors, (plots.RED, plots.BLUE), strict=True):
    plt.semilogy(range(LEFT + 2), np.maximum(errors[right], 1e-8), "o-", color=color, label=f"frames after it: {right}")
plt.axvline(LEFT, color=plots.GREY, ls="--")
plt.xlabel("frames of context before each chunk")
plt.ylabel("largest error of a sample")
plt.legend()
plt.show()
assert errors[RIGHT][LEFT] < 1e-4 < 1e-3 < errors[RIGHT][0]       # enough context: only rounding is left
assert errors[0][LEFT] > 1e-3                                     # without the frame after it never becomes right

# %% [markdown]
# Without the frame after it, no amount of past helps: the red line stays high. With it the error falls as more past
# is given, and at the number of frames that we computed it drops to rounding. So context works; but each chunk of
# four frames now costs the decoding of many more. Count it:

# %%
for size in (1, 4):
    times = (LEFT + size + RIGHT) / size
    print(f"chunks of {size}: {times:.1f} times the work when context is decoded again, once when it is remembered")

# %% [markdown]
# `codec.stream()` *remembers*: each layer keeps just the columns that it will need again, starts with the zeros that
# pad the offline layer on its left, and ends with those on its right. It does every bit of work once, is at most one
# frame late, and gives the offline sound exactly. That is the whole trick of `codec.py`'s streaming stages, and it
# works for SNAC too.
#
# Where a codec offers no such stream, people overlap chunks and fade from one into the next. It hides clicks, though
# it does not make the sound right.
#
# ### Exercise 3: the cross-fade (difficulty 3 of 5, 15 minutes)
#
# Write `my_crossfade(pieces, overlap)`: a list of pieces `(N_i,)`, each of which shares its last `overlap` samples
# with the first ones of the next. In the shared stretch fade linearly from the old piece to the new one; elsewhere
# change nothing.
#
# <details><summary>Hint 1</summary>Two ramps that add up to one: <code>r = torch.linspace(0, 1, overlap)</code> for
# the new piece, <code>1 - r</code> for the old one.</details>
# <details><summary>Hint 2</summary>Keep the sound so far in one tensor. For each piece: everything but the last
# <code>overlap</code> samples, then the mixed ones, then the rest of the piece.</details>

# %%
my_crossfade = None                          # replace me: def my_crossfade(pieces, overlap): ...
checks.crossfade(my_crossfade)

# %% [markdown]
# ## 8.7 Temperature: how a token is drawn
#
# So far the most likely token was always taken. The voice of `Assistant` draws instead: logits divided by a
# *temperature*, the best few kept (*top k*, or *top p*), one drawn by its share.
#
# **Guess first.** Is a voice that always takes its most likely token the best voice?
#
# To see what there is to choose from, we keep the logits of an answer.

# %%
class Keeping(SlowDecoder):
    """The readable decoder, and a note of all audio logits."""

    def __init__(self, model) -> None:
        super().__init__(model)
        self.kept: list[Tensor] = []

    def step(self, *args, **how) -> Logits:
        logits = super().step(*args, **how)
        self.kept.append(logits.audio.clone())
        return logits


keeping = Keeping(model)
list(generate(model, None, task=Task.A1A2, features=features, sampling=assistant.sampling, decoder=keeping, limit=40))
logits = torch.stack(keeping.kept[NUM_STREAMS:-NUM_STREAMS], dim=1)[..., : vocab.codebook]    # (7, steps, ids)
print("kept logits:", tuple(logits.shape[::2]), "streams and codebook entries, of every step in which all seven speak")


# %%
def shares(logits: Tensor, temperature: float, top_k: int = 0) -> Tensor:
    """Naive: divide by the temperature, drop all but the best k, softmax."""
    logits = (logits - logits.max(-1, keepdim=True).values) / temperature      # so that no exponential overflows
    if top_k:
        logits = torch.where(logits >= logits.sort(descending=True).values[..., top_k - 1 : top_k], logits, -torch.inf)
    return logits.exp() / logits.exp().sum(-1, keepdim=True)


middle = logits[0, logits.shape[1] // 2]                          # the coarse stream, in the middle of the answer
drawn = sample(middle.expand(20_000, -1), 0.7, 30, generator=torch.Generator().manual_seed(0))
counted = torch.bincount(drawn, minlength=vocab.codebook) / len(drawn)
distance = (counted - shares(middle, 0.7, 30)).abs().sum() / 2
print(f"20,000 draws of the library lie {distance:.3f} away from the naive shares (0: the same, 1: nothing in common)")
assert distance < 0.05

# %%
def draw_choice(temperature: float = 0.7, top_k: int = 30) -> None:
    """The twenty likeliest entries of the coarse stream and of the last fine one, before and after."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 3.4), sharey=True)
    for ax, stream, name in zip(axes, (0, 6), ("stream 0, coarse", "stream 6, fine"), strict=True):
        some = logits[stream, logits.shape[1] // 2]
        order = some.argsort(descending=True)[:20]
        ax.bar(range(20), some.softmax(-1)[order].numpy(), color=plots.GREY, alpha=0.5, label="temperature 1")
        ax.bar(range(20), shares(some, temperature, top_k)[order].numpy(), 0.45, color=plots.ORANGE,
               label=f"{temperature:g}, top {top_k}")
        ax.set(xlabel="the twenty likeliest entries", xticks=(0, 5, 10, 15), title=name)
    axes[0].set_ylabel("probability")
    axes[1].legend()
    plt.show()


draw_choice()

# %%
show_control(ipywidgets.interactive(draw_choice, temperature=(0.1, 2.0, 0.1), top_k=(1, 100)),
             "Here are sliders for temperature and top k when this notebook is run.")

# %% [markdown]
# How uncertain is each stream? The *entropy* says it in bits: 0 bits means that one entry is certain, 3 bits as much
# doubt as between eight equally likely ones. Below its mean over the answer, for four temperatures.

# %%
def entropy_bits(p: Tensor) -> Tensor:
    """Mean over steps of the entropy of (..., steps, ids) probabilities, in bits."""
    return -(p * p.clamp(min=1e-12).log2()).sum(-1).mean(-1)


TEMPERATURES = (0.3, 0.7, 1.0, 1.5)
bits = torch.stack([entropy_bits(shares(logits, t)) for t in TEMPERATURES])     # (4, 7)
plt.figure(figsize=(9, 3.6))
for t, row, color in zip(TEMPERATURES, bits, (plots.BLUE, plots.SKY, plots.ORANGE, plots.RED), strict=True):
    plt.plot(range(NUM_STREAMS), row, "o-", color=color, label=f"temperature {t:g}")
plt.xticks(range(NUM_STREAMS), ["0\ncoarse", "1\nmiddle", "2\nfine", "3\nfine", "4\nmiddle", "5\nfine", "6\nfine"])
plt.ylabel("bits of doubt")
plt.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
plt.show()
assert (bits.diff(dim=0) >= -1e-3).all()     # hotter is never surer

# %% [markdown]
# Compare the streams at one temperature: a stream that is far from certain has many ways to go on that sound alike,
# such as the exact noise in an "s". Always taking the most likely one then gives the same dull sound again and again;
# drawing from the best few gives life, and drawing from all gives errors. What happens to the *words* when the voice
# is drawn hotter?

# %%
answers = {}
for t in (0.0, 0.7, 1.5):
    how = Sampling(audio_temperature=t, top_k=30)
    answers[t] = [assistant.answer(features, sampling=how, seed=seed) for seed in (0, 1)]
fig, axes = plt.subplots(len(answers), 1, figsize=(11, 7.5), sharex=True)
for ax, (t, (reply, again)) in zip(axes, answers.items(), strict=True):
    plots.spectrogram(reply.wav_24k, CODEC_RATE, ax)
    other = "the same sound" if np.array_equal(reply.wav_24k, again.wav_24k) else "another sound"
    ax.set(title=f"audio temperature {t:g}: {reply.audio_s:.2f} s; another seed gives {other}", xlabel="")
plt.show()
spoken_texts = {reply.text for replies in answers.values() for reply in replies}
longest = max(spoken_texts, key=len)
print("said at all temperatures and seeds:", *sorted(spoken_texts, key=len), sep="\n   ")
assert all(longest.startswith(text) for text in spoken_texts)            # the same words, as far as the voice lasts
assert np.array_equal(*(reply.wav_24k for reply in answers[0.0]))

# %% [markdown]
# The words never change, and they cannot: with two rows the text comes from the row that hears no sound of its own.
# (A voice that happens to end too early takes the rest of the text with it: the answer is over when stream 0 says
# so.) Only the voice varies. That separation is a quiet gift of batch-parallel decoding: the voice may be drawn as
# lively as one likes without risking the answer.
#
# ### Exercise 4: the nucleus (difficulty 3 of 5, 15 minutes)
#
# *Top p* keeps the most likely ids that **together** reach the share `top_p`, the one that crosses the line included,
# and scales them back to 1. Write `my_nucleus(p, top_p)` for probabilities `(V,)`.
#
# <details><summary>Hint 1</summary>Sort from the likeliest down. For each id ask: what do the likelier ones hold
# together <i>before</i> it?</details>
# <details><summary>Hint 2</summary><code>p[order].cumsum(0) - p[order]</code> is that. An id stays while it is below
# <code>top_p</code>; the first one always stays.</details>

# %%
my_nucleus = None                            # replace me: def my_nucleus(p, top_p): ...
checks.nucleus(my_nucleus)

# %% [markdown]
# ## 8.8 What to remember, what next
#
# - The first sound costs hearing, one prompt and nine choices. The nine belong to the delay of the eight rows; the
#   length of the answer does not matter.
# - Cascade and sequential pay for whole texts first. That is arithmetic, not engineering, and it grows with the
#   answer.
# - A second row that only writes is nearly free, because a step is the reading of all weights.
# - Chunks without context click. A stream that remembers is exact, and does no work twice.
#
# Try next:
#
# - Your own question: load a wav with `load_question` into `wav_16k` and run 8.1 again. How does `hear` grow with its
#   length?
# - `python -m omni_lite bench` times a step at the paper's size on your machine, beside what the released code does
#   step by step. On which side of the 85 ms is it?
# - In 8.3 let the sequential way speak with `FastDecoder`. Can it catch up with the parallel way? At which length of
#   the answer?
#
# On to [09 · Judge](09_judge.ipynb): quick is good, but is it *right*?
