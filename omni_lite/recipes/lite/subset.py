"""Choose the committed subset of the data set, small enough for the repository."""

import io
import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from omni_lite.audio import atomic_write
from omni_lite.data import codes_to_text
from omni_lite.folder import CHECKPOINTS
from omni_lite.recipes.lite.corpus import shards, spoken_answers
from omni_lite.recipes.lite.stages import trained_codec


def write_subset(data: Path, out: Path, weights: Path = CHECKPOINTS / "lite", train: int = 800, test: int = 60,
                 seed: int = 0) -> None:
    """Write the subset's Parquet files: questions as Ogg Opus, answers as codes, and the texts.

    weights: the folder of the codec that makes the codes
    train: questions of the training split, each skill in proportion to the square root of its size
    test:  random questions of each test set; a third as many of each development set
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    rows = [row for path in shards(data, "train") for row in pq.read_table(path).to_pylist()]
    by_skill: dict[str, list[dict]] = {}
    for row in rows:
        by_skill.setdefault(row["skill"], []).append(row)
    share = train / sum(math.sqrt(len(group)) for group in by_skill.values())
    picked = [row for group in by_skill.values()
              for row in rng.sample(group, min(len(group), round(share * math.sqrt(len(group)))))]
    rng.shuffle(picked)
    sets = {"train": picked}
    for name in ("facts", "voices", "both", "phrasings"):
        for split in ("dev", "test"):
            found = [row for path in shards(data, f"{split}_{name}") for row in pq.read_table(path).to_pylist()]
            sets[f"{split}_{name}"] = rng.sample(found, min(len(found), test if split == "test" else test // 3))
    codes = answers_in_codes(data, weights, {row["answer"] for group in sets.values() for row in group})
    for name, group in sets.items():
        for row in group:
            row["question_audio"] = dict(bytes=ogg(row["question_audio"]["bytes"]), path=f"{row['index']}.ogg")
            row["answer_snac"] = codes.get(row["answer"], "")
        with atomic_write(out / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(group), temporary, compression="zstd", compression_level=19)
    texts = pq.read_table(data / "text.parquet", columns=["split_name", "index", "round", "question", "answer", "skill",
                                                          "fact"])
    with atomic_write(out / "text.parquet") as temporary:
        pq.write_table(texts, temporary, compression="zstd", compression_level=19)
    size = sum(path.stat().st_size for path in out.glob("*.parquet"))
    print(f"{sum(map(len, sets.values()))} questions, {texts.num_rows} texts, {size / 1e6:.1f} MB in {out}")


def answers_in_codes(data: Path, weights: Path, texts: set[str]) -> dict[str, str]:
    """Codes of these answers in the format of the column `answer_snac`, by the codec of a folder of weights."""
    codec = trained_codec(weights)
    return {text: codes_to_text(codec.encode(wave[None, None])[0]) for _, text, wave in spoken_answers(data)
            if text in texts}


def ogg(flac: bytes) -> bytes:
    """The sound as Ogg Opus at about 20 kbit/s; Vorbis would need 4 KB just for its headers."""
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="OGG", subtype="OPUS", compression_level=0.96)
    return buffer.getvalue()
