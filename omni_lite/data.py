"""The data: one Parquet schema for all sets, the tokenizer, precomputed encoder features, batches.

Schema: VoiceAssistant-400K's columns (`split_name, index, round, question, question_audio{bytes, path}, answer,
answer_snac`). VoiceAssistant-lite adds `skill, fact, voice`. `answer_snac` is one string "# t1 ... t7 # t1 ... t7" of
unshifted codes in frame order.
Source: huggingface.co/datasets/gpt-omni/VoiceAssistant-400K
"""

import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import soundfile
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from omni_lite.audio import atomic_write, to_mono_rate
from omni_lite.streams import IGNORE, Batch, Example, Task, collate, example
from omni_lite.vocab import EAR_RATE, NUM_STREAMS, Vocab

FRAME_MARK = "#"


# --- the schema -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One question and its answer.

    question_wav: (N,) float32 at 16 kHz
    codes:        (7, T) int64 of the spoken answer
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
    """The inverse of `codes_to_text`; raises ValueError if a frame does not hold seven codes."""
    frames = [frame.split() for frame in text.split(FRAME_MARK)[1:]]
    if any(len(frame) != NUM_STREAMS for frame in frames):
        raise ValueError(f"{name} has a frame without {NUM_STREAMS} codes: the row is damaged, leave it out.")
    return torch.tensor([[int(code) for code in frame] for frame in frames]).view(-1, NUM_STREAMS).T


def read_rows(paths: Sequence[str | Path], sound: bool = True) -> list[Row]:
    """Read Parquet files of the schema; unknown columns are ignored, missing ones are empty.

    sound: decode the question's audio (mono, 16 kHz); False is much faster
    """
    rows: list[Row] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"There is no data file {path}: run `make data`, or restore it (`git checkout`).")
        try:
            file = pq.ParquetFile(path)
            wanted = [name for name in file.schema_arrow.names if sound or name != "question_audio"]
            table = file.read(columns=wanted)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not a complete Parquet file ({error}): run `make data` again.") from error
        for column in ("question", "answer"):
            if column not in table.column_names:
                raise ValueError(f"{path} has no column {column!r}: it needs the columns of VoiceAssistant-400K.")
        rows += [row_of(entry, path) for entry in table.to_pylist()]
    return rows


def row_of(entry: Mapping[str, Any], path: Path) -> Row:
    """One entry of a Parquet file as a `Row`; missing columns are empty."""
    audio, snac = entry.get("question_audio") or {}, entry.get("answer_snac") or ""
    return Row(
        split=entry.get("split_name") or path.stem,
        index=int(entry.get("index") or 0),
        question=entry["question"],
        answer=entry["answer"],
        question_wav=decode_audio(audio["bytes"], EAR_RATE) if audio.get("bytes") else None,
        codes=codes_from_text(snac, f"{path}, index {entry.get('index')}") if snac else None,
        skill=entry.get("skill") or "",
        fact=entry.get("fact") or "",
        voice=entry.get("voice") or "",
    )


def decode_audio(data: bytes, rate: int) -> Tensor:
    """The bytes of an audio file -> (N,) float32 at `rate`."""
    samples, from_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return to_mono_rate(samples, from_rate, rate)


# --- tokenizer ------------------------------------------------------------------------------


def train_tokenizer(texts: Sequence[str], size: int) -> Tokenizer:
    """A byte-level BPE of at most `size` ids, without special tokens: `Vocab` adds those."""
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
        raise FileNotFoundError(f"There is no {path}: restore the tokenizer (`git checkout`), or train it.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:               # the Rust side raises bare Exception
        raise ValueError(f"{path} is not a tokenizer file ({error}): restore it (`git checkout`).") from error


# --- precomputed encoder features --------------------------------------------------------------


class FeatureStore:
    """Encoder features of many clips in one memory-mapped float16 file.

    offsets: (clips + 1,) int64; clip i is rows offsets[i] .. offsets[i + 1] of (rows, D)
    """

    def __init__(self, path: str | Path, width: int) -> None:
        self.path = Path(path)
        self.offsets = np.load(self.path.with_suffix(".offsets.npy"))
        self.width = width
        self.rows = np.memmap(self.path, np.float16, "r", shape=(int(self.offsets[-1]), width))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def length(self, clip: int) -> int:
        """T of one clip."""
        return int(self.offsets[clip + 1] - self.offsets[clip])

    def __getitem__(self, clip: int) -> Tensor:
        return torch.from_numpy(np.array(self.rows[self.offsets[clip] : self.offsets[clip + 1]]))


def store_features(path: str | Path, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Write batches of features (B, T, D) with lengths (B,) as a `FeatureStore`."""
    path = Path(path)
    offsets = [0]
    with atomic_write(path) as temporary, atomic_write(path.with_suffix(".offsets.npy")) as table:
        with open(temporary, "wb") as file:
            for features, lengths in batches:
                for row, length in zip(features, lengths.tolist(), strict=True):
                    row[:length].to("cpu", torch.float16).numpy().tofile(file)
                    offsets.append(offsets[-1] + length)
        with open(table, "wb") as file:
            np.save(file, np.array(offsets))


@dataclass(frozen=True)
class Item:
    """One training example before it is laid out: token ids, a clip number, codes (7, T)."""

    task: Task
    question: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    clip: int = -1                           # of the feature store, for the tasks that hear
    codes: Tensor | None = None

    @property
    def hears(self) -> bool:
        """Whether the question is sound from the feature store."""
        return self.task.hears

    def lay_out(self, vocab: Vocab, positions: int) -> Example:
        """The eight streams of this item; positions: ASR adapter outputs of its clip, 0 without a clip."""
        return example(
            vocab,
            self.task,
            question_text=None if self.task.hears else self.question,
            positions=positions if self.task.hears else None,
            answer_text=self.answer,
            answer_codes=self.codes if self.task.speaks else None,
        )


class Store(Protocol):
    """Encoder features of numbered clips, such as a `FeatureStore`."""

    width: int

    def length(self, clip: int) -> int:
        """T of one clip."""

    def __getitem__(self, clip: int) -> Tensor:
        """(T, D) features of one clip."""


@dataclass
class Heard:
    """A batch with its questions' features (B, T, D) and lengths (B,); None, None without spoken questions.

    items: the source of each sequence
    voice_text: (b, S) the text stream that the TTS adapter reads in the b sequences that speak; None: `batch.text_in`
    notes: what a transform leaves for an auxiliary loss
    """

    batch: Batch
    features: Tensor | None
    lengths: Tensor | None
    items: Sequence[Item] = ()
    voice_text: Tensor | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def speaks(self) -> Tensor:
        """Which sequences have audio targets, (B,) bool."""
        return (self.batch.audio_target != IGNORE).any(-1).any(-1)

    @property
    def said(self) -> list[tuple[int, ...]]:
        """The tokens of each spoken question, () for the others."""
        return [item.question if item.hears else () for item in self.items]


def batches(
    draw: Iterator[Item], vocab: Vocab, stack: int, store: Store | None, batch_positions: int, pool: int = 24
) -> Iterator[Heard]:
    """Batches of examples of similar length: draw enough for `pool` batches, sort, cut, shuffle.

    batch_positions: the limit for B times the longest length, so every batch costs the same
    """
    while True:
        laid: list[tuple[Item, Example]] = []
        budget = batch_positions * pool
        while budget > 0:
            item = next(draw)
            positions = -(-store.length(item.clip) // stack) if item.hears and store is not None else 0
            one = item.lay_out(vocab, positions)
            laid.append((item, one))
            budget -= len(one)
        laid.sort(key=lambda pair: len(pair[1]))
        groups: list[list[tuple[Item, Example]]] = [[]]
        for pair in laid:
            if (len(groups[-1]) + 1) * len(pair[1]) > batch_positions:
                groups.append([])
            groups[-1].append(pair)
        random.shuffle(groups)
        for group in groups:
            if group:
                yield gather([item for item, _ in group], [one for _, one in group], vocab, store)


def gather(items: Sequence[Item], laid: Sequence[Example], vocab: Vocab, store: Store | None) -> Heard:
    """Pad a group of laid-out items to one batch, and add the features of their clips."""
    batch = collate(laid, vocab)
    if store is None or not any(item.hears for item in items):
        return Heard(batch, None, None, items)
    clips = [store[item.clip] if item.hears else None for item in items]
    lengths = torch.tensor([0 if clip is None else len(clip) for clip in clips])
    features = torch.zeros(len(items), int(lengths.max()), store.width)
    for row, clip in enumerate(clips):
        if clip is not None:
            features[row, : len(clip)] = clip
    return Heard(batch, features, lengths, items)


class Deck(Sequence[Any]):
    """Deals the entries of a pile in random order; each comes once before any repeats."""

    def __init__(self, pile: Sequence[Any]) -> None:
        self.pile, self.order = pile, list[int]()

    def __len__(self) -> int:
        return len(self.pile)

    def __getitem__(self, place: Any) -> Any:
        return self.pile[place]

    def deal(self) -> Any:
        """The next entry."""
        if not self.order:
            self.order.extend(range(len(self.pile)))
            random.shuffle(self.order)
        return self.pile[self.order.pop()]


def draw_items(mixture: Mapping[str, float], samplers: Mapping[str, Callable[[], Item]]) -> Iterator[Item]:
    """Items forever; each kind is chosen by its share of the mixture, and its sampler makes the item."""
    missing = [kind for kind in mixture if kind not in samplers]
    if missing:
        raise ValueError(f"There is no sampler for {missing[0]!r}: choose kinds from {', '.join(samplers)}.")
    kinds, shares = list(mixture), list(mixture.values())
    while True:
        yield samplers[random.choices(kinds, shares)[0]]()
