"""The corpora of the lite recipe, read from the data set and the files of earlier stages."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from torch import Tensor

from omni_lite.audio import to_mono_rate
from omni_lite.config import LITE
from omni_lite.data import FeatureStore, Row, codes_from_text, decode_audio, load_tokenizer, read_rows, store_features
from omni_lite.folder import data_folder
from omni_lite.load import load_ears
from omni_lite.recipes.features import hear_all
from omni_lite.recipes.lite.items import Corpus
from omni_lite.recipes.progress import digest_of
from omni_lite.vocab import CODEC_RATE, EAR_RATE

SUBSET = data_folder() / "subset"
NATURAL = ("kokoro:",)                       # engines with natural voices
NATURAL_SHARE, NATURAL_TIMES = 0.3, 15       # their share of all clips, and the most repetitions of one clip
ANSWER_TIMES = 3                             # repetitions of an answer; other sentences come once


def shards(data: Path, name: str) -> list[Path]:
    """The Parquet files of one split, in order."""
    found = sorted(data.glob(f"{name}-[0-9]*.parquet"))
    if not found:
        raise FileNotFoundError(f"{data} has no {name}-*.parquet: build the data set with `make data`.")
    return found


def extras(data: Path, name: str) -> list[Path]:
    """Shards of sentences without an answer: "heard" for the ASR adapter, "spoken" for the voice; maybe none.

    The order: sensible sentences, random words, false answers, rare words, natural voices, then other engines.
    """
    kinds = (name, f"{name}_words", f"{name}_crossed", f"{name}_rare", f"{name}_natural", f"{name}_world",
             f"{name}_festival", f"{name}_vocoder")
    return [path for kind in kinds for path in sorted(data.glob(f"{kind}-[0-9]*.parquet"))]


def spoken_answers(data: Path) -> Iterator[tuple[str, str, Tensor]]:
    """(split, text, (N,) float32 at 24 kHz) of every answer and of the extra spoken sentences."""
    for path in shards(data, "answers") + extras(data, "spoken"):
        for row in pq.read_table(path).to_pylist():
            yield row["split_name"], row["answer"], decode_audio(row["audio"], CODEC_RATE)


def answer_texts(data: Path) -> list[tuple[str, str]]:
    """(split, text) of all `spoken_answers`, in order."""
    tables = [pq.read_table(path, columns=["split_name", "answer"])
              for path in shards(data, "answers") + extras(data, "spoken")]
    return [(row["split_name"], row["answer"]) for table in tables for row in table.to_pylist()]


def train_answers(data: Path) -> list[str]:
    """The texts of the training split's `spoken_answers`, in order."""
    return [text for split, text in answer_texts(data) if split == "train"]


def training_clips(data: Path, group: int = 256) -> Iterator[list[Tensor]]:
    """The ASR adapter's training clips in groups, each clip (N,) float32 at 16 kHz."""
    for path in shards(data, "train") + extras(data, "heard"):
        yield [row.question_wav for row in read_rows([path]) if row.question_wav is not None]
    clips: list[Tensor] = []
    for split, _, wave in spoken_answers(data):
        if split == "train":
            clips.append(to_mono_rate(wave, CODEC_RATE, EAR_RATE))
        if len(clips) == group:
            yield clips
            clips = []
    if clips:
        yield clips


def train_codes(run: Path) -> dict[str, Tensor]:
    """The codes (7, T) of every spoken text of the training split, from the stage "encode"."""
    return {row["answer"]: codes_from_text(row["answer_snac"])
            for row in pq.read_table(run / "codes.parquet").to_pylist() if row["split_name"] == "train"}


def token_ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The token ids of a text."""
    return tuple(tokenizer.encode(text).ids)


def corpus(data: Path, run: Path, out: Path, hears: bool = True) -> Corpus:
    """The corpus of the lite phases; `hears=False`: only the texts, for text pretraining."""
    tokenizer = load_tokenizer(out)
    ids = partial(token_ids, tokenizer)
    rows = read_rows([data / "text.parquet"], sound=False)
    copied = [ids(row.question) for row in rows] + [ids(row.answer) for row in rows[::3]]
    written = [(ids(row.question), ids(row.answer)) for row in balanced(rows)]
    if not hears:
        return Corpus(tokenizer, written, copied, [], [], [], None)
    codes = train_codes(run)
    rows = read_rows(shards(data, "train") + extras(data, "heard"), sound=False)
    store, said = FeatureStore(run / "features.f16", LITE.ear.width), train_answers(data)
    if len(store) != len(rows) + len(said):
        raise ValueError(f"{store.path} has {len(store)} clips, but {data} has {len(rows) + len(said)}: delete it, it "
                         "will be made again.")
    questions = [ids(row.question) for row in rows]
    answers = [ids(row.answer) for row in rows]
    # Natural voices generalise best to people, so their clips come more often.
    often = how_often([row.voice for row in rows] + [""] * len(said))
    transcribed = [(clip, text) for clip, text in enumerate(questions + [ids(text) for text in said])
                   for _ in range(often[clip])]
    heard = [(clip, question, answer, codes[row.answer])
             for clip, (row, question, answer) in enumerate(zip(rows, questions, answers, strict=True)) if row.answer]
    spoken, takes = all_spoken(codes, rows, run, ids)
    return Corpus(tokenizer, written, copied, transcribed, heard, spoken, store, takes)


def how_often(voices: Sequence[str]) -> list[int]:
    """Repetitions of each clip, so that natural voices make up `NATURAL_SHARE`; 1 for other voices."""
    natural = [voice.startswith(NATURAL) for voice in voices]
    times = NATURAL_SHARE / (1 - NATURAL_SHARE) * natural.count(False) / max(1, natural.count(True))
    return [min(NATURAL_TIMES, max(1, round(times))) if one else 1 for one in natural]


def all_spoken(codes: Mapping[str, Tensor], rows: Sequence[Row], run: Path, ids: Callable[[str], tuple[int, ...]]
               ) -> tuple[list[tuple[tuple[int, ...], tuple[int, ...], Tensor]],
                          dict[tuple[int, ...], list[tuple[Tensor, Tensor]]]]:
    """The fields `spoken` and `takes` of a `Corpus`.

    Each answer follows one of its questions; the extra sentences follow "Repeat after me". Answers are a minority, so
    they come more often, see `times_said`.

    codes: of every text;  rows: questions with their answers
    """
    asked, questions = {row.answer: row.question for row in rows}, Counter(row.answer for row in rows)
    spoken = [(ids(asked.get(text, f"Repeat after me: {text}")), ids(text), code) for text, code in codes.items()
              for _ in range(times_said(questions[text]))]
    takes: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for text, found in read_takes(run / "takes.parquet") if (run / "takes.parquet").exists() else ():
        takes.setdefault(ids(text), []).extend(found)
    return spoken, takes


def times_said(questions: int) -> int:
    """Repetitions of a text by the number of questions it answers: grows with the square root; 1 without questions."""
    return max(1, ANSWER_TIMES * math.ceil(math.sqrt(questions)))


def voice_corpus(data: Path, run: Path, out: Path, device: str = "cpu") -> Corpus:
    """The corpus of a phase that trains only the voice: all answers, and the spoken questions of the subset.

    The voice says what the text stream says, for any question, so a few hundred recorded questions are enough.
    """
    tokenizer, asked = load_tokenizer(out), SUBSET / "train.parquet"
    store = run / f"subset-{digest_of(asked)[:12]}.f16"                      # another subset has other clips
    ids = partial(token_ids, tokenizer)
    codes = train_codes(run)
    rows = read_rows([asked])
    if not store.exists():
        store_features(store, hear_all(load_ears(LITE.ear.whisper).to(device), rows))
    heard = [(clip, ids(row.question), ids(row.answer), codes.get(row.answer)) for clip, row in enumerate(rows)]
    spoken, takes = all_spoken(codes, read_rows([data / "text.parquet"], sound=False), run, ids)
    return Corpus(tokenizer, [], [], [], [row for row in heard if row[3] is not None], spoken,
                  FeatureStore(store, LITE.ear.width), takes)


def small_corpus(tokenizer: Tokenizer, rows: Sequence[Row], store: FeatureStore | None,
                 texts: Sequence[Row] = ()) -> Corpus:
    """The corpus of a few rows with codes, such as the committed subset.

    store: clip i is the question of row i;  texts: written questions with their answers
    """
    ids = partial(token_ids, tokenizer)
    heard = [(clip, ids(row.question), ids(row.answer), row.codes) for clip, row in enumerate(rows)]
    spoken = {answer: (question, answer, codes) for _, question, answer, codes in heard if codes is not None}
    return Corpus(
        tokenizer,
        written=[(ids(row.question), ids(row.answer)) for row in balanced(list(texts))],
        copied=[ids(row.question) for row in texts[::5]],
        transcribed=[(clip, question) for clip, question, _, _ in heard],
        heard=heard, spoken=list(spoken.values()), store=store)


def read_takes(path: Path) -> Iterator[tuple[str, list[tuple[Tensor, Tensor]]]]:
    """The file of the stage "takes": each answer with its takes (codes (7, T), turns (tokens,) in frames)."""
    for row in pq.read_table(path).to_pylist():
        turns = torch.tensor(row["turns"])
        yield row["answer"], [(codes_from_text(codes), turns + i / len(row["takes"]))
                              for i, codes in enumerate(row["takes"])]


def balanced(rows: list[Row], phrasings: int = 10, repeats: float = 0.1, usual: int = 300) -> list[Row]:
    """Written questions, repeated so that each fact comes about equally often, for any number of phrasings.

    Skills with few facts are harder to learn than skills with many similar facts, so their facts come more often. A
    fact comes `phrasings` times if its skill has `usual` facts. With fewer facts it comes up to four times as often, by
    the square root. Of the many sentences to repeat, `repeats` are kept for each other row.
    """
    facts: dict[str, list[Row]] = {}
    for row in rows:
        if row.skill not in ("repeat", "unknown"):
            facts.setdefault(row.answer, []).append(row)
    sizes = Counter(group[0].skill for group in facts.values())
    kept = [row for row in rows if row.skill == "unknown"]
    for group in facts.values():
        times = phrasings * min(4.0, max(1.0, math.sqrt(usual / sizes[group[0].skill])))
        kept += group * math.ceil(times / len(group))
    spare = [row for row in rows if row.skill == "repeat"]
    return kept + random.Random(0).sample(spare, min(len(spare), round(repeats * len(kept))))
