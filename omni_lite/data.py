"""The data: one Parquet schema for all sets, tokenizer, features once computed, batches.

Schema: VoiceAssistant-400K's columns (`split_name, index, round, question, question_audio{bytes,
path}, answer, answer_snac`), after which VoiceAssistant-lite has `skill, fact, voice`.
`answer_snac` is one string "# t1 ... t7 # t1 ... t7" of unshifted codes in frame order.
Source: huggingface.co/datasets/gpt-omni/VoiceAssistant-400K
"""

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import scipy.signal
import soundfile
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from omni_lite.audio import atomic_write, to_mono_rate
from omni_lite.streams import IGNORE, Batch, Example, Task, collate, example
from omni_lite.vocab import EAR_RATE, NUM_STREAMS, Vocab

FRAME_MARK = "#"


# --- the schema -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One question and its answer; sound and codes may be missing.

    question_wav: (N,) float32 at 16 kHz, or None
    codes:        (7, T) int64 of the spoken answer, or None
    """

    split: str
    index: int
    question: str
    answer: str
    question_wav: Tensor | None = None
    codes: Tensor | None = None
    skill: str = ""
    fact: str = ""
    voice: str = ""


def codes_to_text(codes: Tensor) -> str:
    """(7, T) codes -> "# t1 ... t7 # t1 ... t7", the column `answer_snac`."""
    return " ".join(f"{FRAME_MARK} " + " ".join(map(str, frame)) for frame in codes.T.tolist())


def codes_from_text(text: str, name: str = "answer_snac") -> Tensor:
    """The inverse of `codes_to_text`; raises ValueError where a frame does not hold seven codes."""
    frames = [frame.split() for frame in text.split(FRAME_MARK)[1:]]
    if any(len(frame) != NUM_STREAMS for frame in frames):
        raise ValueError(f"{name} has a frame without {NUM_STREAMS} codes: the row is damaged, leave it out.")
    return torch.tensor([[int(code) for code in frame] for frame in frames]).view(-1, NUM_STREAMS).T


def read_rows(paths: Sequence[str | Path], sound: bool = True) -> list[Row]:
    """Read Parquet files of the schema; unknown columns are left alone, missing ones are empty.

    sound: decode the question's audio (mono, 16 kHz); False is much quicker where only text counts
    """
    rows = []
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"There is no data file {path}: run `make data`, or restore it (`git checkout`).")
        try:
            file = pq.ParquetFile(path)
            wanted = [name for name in file.schema_arrow.names if sound or name != "question_audio"]
            table = file.read(columns=wanted)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no whole Parquet file ({error}): run `make data` again.") from error
        for column in ("question", "answer"):
            if column not in table.column_names:
                raise ValueError(f"{path} has no column {column!r}: it needs the columns of VoiceAssistant-400K.")
        for entry in table.to_pylist():
            audio = entry.get("question_audio") or {}
            snac = entry.get("answer_snac") or ""
            rows.append(Row(
                split=entry.get("split_name") or path.stem,
                index=int(entry.get("index") or 0),
                question=entry["question"],
                answer=entry["answer"],
                question_wav=decode_audio(audio["bytes"], EAR_RATE) if audio.get("bytes") else None,
                codes=codes_from_text(snac, f"{path}, index {entry.get('index')}") if snac else None,
                skill=entry.get("skill") or "",
                fact=entry.get("fact") or "",
                voice=entry.get("voice") or "",
            ))
    return rows


def decode_audio(data: bytes, rate: int) -> Tensor:
    """The bytes of an audio file -> (N,) float32 at `rate`."""
    samples, from_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return to_mono_rate(samples, from_rate, rate)


# --- tokenizer ------------------------------------------------------------------------------


def train_tokenizer(texts: Sequence[str], size: int) -> Tokenizer:
    """A byte-level BPE of at most `size` ids, with no special ids: those follow in `Vocab`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """tokenizer.json of a model's folder."""
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: a model's folder holds its tokenizer, restore or train it.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:               # the Rust side raises bare Exception
        raise ValueError(f"{path} is no tokenizer file ({error}): restore it (`git checkout`).") from error


# --- augmentation: what a room, a microphone and a line do to a voice ---------------------------


def augment(wav_16k: np.ndarray, rng: np.random.Generator, others: Sequence[np.ndarray] = ()) -> np.ndarray:
    """One question as another microphone in another room might have heard it.

    wav_16k: (N,) float32.  others: speech for babble noise.
    returns: (N',) float32; speed 0.85 to 1.18 (pitch and formants move with it: another throat),
             room, band limits, noise from 3 dB on, gain, clipping, each with its own probability
    """
    x = np.asarray(wav_16k, np.float32)
    if rng.random() < 0.7:
        speed = rng.uniform(0.85, 1.18)
        x = scipy.signal.resample_poly(x, 100, round(100 * speed)).astype(np.float32)
    pad = [int(rng.uniform(0, 0.35) * EAR_RATE), int(rng.uniform(0, 0.4) * EAR_RATE)]
    x = np.pad(x, pad)
    if rng.random() < 0.5:
        x = in_room(x, rng)
    if rng.random() < 0.4:
        x = band_limited(x, rng)
    if rng.random() < 0.6:
        level = rms(x) * 10 ** (-rng.uniform(3, 30) / 20)
        x = (x + level * noise(len(x), rng, others)).astype(np.float32)
    if rng.random() < 0.15:
        limit = np.abs(x).max() * rng.uniform(0.3, 0.9)
        x = x.clip(-limit, limit)
    peak = max(float(np.abs(x).max()), 1e-6)
    return (x / peak * 10 ** rng.uniform(-1.5, -0.02)).astype(np.float32)


def rms(x: np.ndarray) -> float:
    """Root mean square of the louder part, so that pauses do not count as quiet speech."""
    loud = x[np.abs(x) > 0.05 * np.abs(x).max()] if len(x) else x
    return float(np.sqrt(np.mean(loud**2))) if len(loud) else 0.0


def in_room(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reverberation: direct sound, then noise that decays by 60 dB in 0.1 to 0.6 s."""
    decay_s = rng.uniform(0.1, 0.6)
    t = np.arange(int(decay_s * EAR_RATE)) / EAR_RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)
    tail *= rng.uniform(0.1, 0.7) / np.sqrt((tail**2).sum())
    tail[: int(0.002 * EAR_RATE)] = 0
    tail[0] = 1.0
    return scipy.signal.fftconvolve(x, tail)[: len(x) + int(0.1 * EAR_RATE)].astype(np.float32)


def band_limited(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A telephone, a small speaker, a cheap microphone."""
    low, high = rng.uniform(50, 350), rng.uniform(2500, 7500)
    sos = scipy.signal.butter(int(rng.integers(1, 5)), (low, high), "bandpass", fs=EAR_RATE, output="sos")
    return scipy.signal.sosfilt(sos, x).astype(np.float32)


def noise(length: int, rng: np.random.Generator, others: Sequence[np.ndarray]) -> np.ndarray:
    """White to brown noise, hum, or other people talking; of rms 1."""
    kind = rng.random()
    if kind < 0.25 and others:
        out = np.zeros(length)
        for _ in range(int(rng.integers(1, 4))):
            voice = others[int(rng.integers(len(others)))]
            out += np.resize(np.roll(voice, int(rng.integers(len(voice)))), length)
    else:
        spectrum = rng.standard_normal(length // 2 + 1) + 1j * rng.standard_normal(length // 2 + 1)
        spectrum *= np.maximum(np.arange(length // 2 + 1), 1.0) ** -rng.uniform(0, 1.2)
        out = np.fft.irfft(spectrum, length)[:length]
        if kind > 0.9:
            out = out / np.std(out) + 2 * np.sin(2 * np.pi * rng.choice([50, 60, 120]) * np.arange(length) / EAR_RATE)
    return (out / max(1e-6, float(np.std(out)))).astype(np.float32)


# --- features, computed once ------------------------------------------------------------------


class FeatureStore:
    """Whisper features of many clips in one float16 file, mapped, not read.

    offsets: (clips + 1,) int64, clip i is rows offsets[i] .. offsets[i + 1] of (rows, D)
    """

    def __init__(self, path: str | Path, width: int) -> None:
        self.path = Path(path)
        self.offsets = np.load(self.path.with_suffix(".offsets.npy"))
        self.rows = np.memmap(self.path, np.float16, "r", shape=(int(self.offsets[-1]), width))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def length(self, clip: int) -> int:
        """T of one clip."""
        return int(self.offsets[clip + 1] - self.offsets[clip])

    def __getitem__(self, clip: int) -> Tensor:
        return torch.from_numpy(np.array(self.rows[self.offsets[clip] : self.offsets[clip + 1]]))


def store_features(path: str | Path, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Write features (B, T, D) with lengths (B,), batch after batch, as a `FeatureStore`."""
    path = Path(path)
    offsets = [0]
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            for features, lengths in batches:
                for row, length in zip(features, lengths.tolist(), strict=True):
                    row[:length].to("cpu", torch.float16).numpy().tofile(file)
                    offsets.append(offsets[-1] + length)
        np.save(path.with_suffix(".offsets.npy"), np.array(offsets))


# --- batches ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Emission:
    """What ears make of n positions: of each its likeliest words, and how much of each `OmniModel.mixed` takes.

    words: (n, K) int64, ids of tokens, or one more for none, see `OmniModel.likeness`
    shares: (n, K) float32, of which the K of a position are 1 together
    """

    words: Tensor
    shares: Tensor

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, positions: slice) -> "Emission":
        return Emission(self.words[positions], self.shares[positions])

    @staticmethod
    def joined(parts: Sequence["Emission"]) -> "Emission":
        """One after the other; zeros where a part knows fewer words of a position."""
        widest = max(part.words.shape[1] for part in parts)
        words, shares = (torch.cat([F.pad(one, (0, widest - one.shape[1])) for one in some])
                         for some in ([part.words for part in parts], [part.shares for part in parts]))
        return Emission(words, shares)


@dataclass(frozen=True)
class Item:
    """One training example before it is laid out: token ids, a clip number, codes."""

    task: Task
    question: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    clip: int = -1                           # of the feature store, for the tasks that hear
    codes: Tensor | None = None
    turns: Tensor | None = None              # of the answer's tokens in its codes, where known: see guide.py
    copy: bool = False                       # read the question back, under the `asr` id, from text
    slow: bool = False                       # a task that hears, but its question is written at the pace of speech
    emission: Emission | None = None         # a task that hears, but from no clip: see reading.py

    @property
    def hears(self) -> bool:
        """The question is sound."""
        return self.task.hears and not self.slow and self.emission is None


def pace(tokens: int) -> list[int]:
    """Where tokens would stand among the 12.5 positions a second if they were spoken, and where the question ends.

    A token takes one to six positions, about four: some three tokens a second. `random` decides.
    """
    places = [random.randint(1, 4)]
    for _ in range(tokens):
        places.append(places[-1] + random.randint(1, 6))
    return places


def lay_out(item: Item, vocab: Vocab, positions: int) -> Example:
    """An item as eight rows.

    `copy` is T1T2 whose prompt ends in `asr`: read back what was read.
    `slow` is laid out as if it were heard, but its tokens stand in the text row, far apart, where the sound
    would be. A language model that can read those can be taught to hear without being changed: the adapter
    has only to put a word's vector where the word is spoken. Without it phase 1a hardly learns.
    """
    places = pace(len(item.question)) if item.slow else []
    if item.emission is not None:
        positions = len(item.emission)
    laid = example(
        vocab,
        item.task,
        question_text=None if item.task.hears else item.question,
        positions=places[-1] if item.slow else positions if item.task.hears else None,
        answer_text=item.answer,
        answer_codes=item.codes if item.task.speaks else None,
    )
    if item.slow:
        text_in = laid.text_in.clone()
        text_in[torch.tensor(places[:-1]) + 1] = torch.tensor(item.question)     # step 0 is input_t
        laid = replace(laid, text_in=text_in)
    if item.copy:
        text_in = laid.text_in.clone()
        text_in[len(item.question) + 2] = vocab.asr
        laid = replace(laid, text_in=text_in)
    return laid


@dataclass
class Heard:
    """A batch with what its questions sound like: features (B, T, D), lengths (B,), or None, None.

    said: the tokens of each question that is heard, () for the others
    turns: (tokens,) of each answer that is spoken, in frames, where known: see guide.turns_of
    looks: where guided heads should look in the examples that speak, if that is known already: see
           guide.expected_attention
    emissions: what is heard of each question without a clip, None for the others
    typed: the same questions typed, where that is wanted: see `typed_too`
    """

    batch: Batch
    features: Tensor | None
    lengths: Tensor | None
    said: Sequence[tuple[int, ...]] = ()
    turns: Sequence[Tensor | None] = ()
    looks: tuple[Tensor, Tensor] | None = None
    emissions: Sequence[Emission | None] = ()
    typed: Batch | None = None

    @property
    def speaks(self) -> Tensor:
        """Which examples say codes, (B,) bool."""
        return (self.batch.audio_target != IGNORE).any(-1).any(-1)


def batches(
    draw: Iterator[Item], vocab: Vocab, stack: int, store: FeatureStore | None, steps_per_batch: int, pool: int = 24,
    typed: bool = False,
) -> Iterator[Heard]:
    """Group examples of like length: the next `pool` batches are drawn, sorted, cut and shuffled.

    steps_per_batch: B times the longest length stays below this, so every batch costs alike
    typed: every batch brings its questions typed, too
    """
    while True:
        laid: list[tuple[Item, Example]] = []
        budget = steps_per_batch * pool
        while budget > 0:
            item = next(draw)
            positions = -(-store.length(item.clip) // stack) if item.hears and store is not None else 0
            one = lay_out(item, vocab, positions)
            laid.append((item, one))
            budget -= len(one)
        laid.sort(key=lambda pair: len(pair[1]))
        groups: list[list[tuple[Item, Example]]] = [[]]
        for pair in laid:
            if (len(groups[-1]) + 1) * len(pair[1]) > steps_per_batch:
                groups.append([])
            groups[-1].append(pair)
        random.shuffle(groups)
        for group in groups:
            if group:
                items = [item for item, _ in group]
                heard = gather(items, [one for _, one in group], vocab, store)
                yield replace(heard, typed=typed_too(items, vocab)) if typed else heard


def gather(items: Sequence[Item], laid: Sequence[Example], vocab: Vocab, store: FeatureStore | None) -> Heard:
    """Pad a group to one batch."""
    batch = collate(laid, vocab)
    turns = [item.turns if item.task.speaks else None for item in items]
    emissions = [item.emission for item in items]
    if store is None or not any(item.hears for item in items):
        return Heard(batch, None, None, turns=turns, emissions=emissions)
    clips = [store[item.clip] if item.hears else None for item in items]
    lengths = torch.tensor([0 if clip is None else len(clip) for clip in clips])
    features = torch.zeros(len(items), int(lengths.max()), store.rows.shape[1])
    for row, clip in enumerate(clips):
        if clip is not None:
            features[row, : len(clip)] = clip
    said = [item.question if item.hears else () for item in items]
    return Heard(batch, features, lengths, said, turns, emissions=emissions)


def typed_too(items: Sequence[Item], vocab: Vocab) -> Batch:
    """The same questions typed, with the same answers, aloud where they are aloud: the k-th target of the text row is
    the k-th here, too.
    """
    twins = [Item(Task.T1A2 if item.task.speaks else Task.T1T2, item.question, item.answer, codes=item.codes,
                  copy=item.copy or item.task == Task.A1T1) for item in items]
    return collate([lay_out(twin, vocab, 0) for twin in twins], vocab)
