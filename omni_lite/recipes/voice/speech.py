"""The teacher's speech as training data: waves for the codec, codes and phoneme borders for the voice."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from omni_lite.audio import atomic_write
from omni_lite.config import CodecConfig
from omni_lite.recipes.voice.teacher import RATE, Spoken, Teacher, alphabet
from omni_lite.vocab import FRAME_SAMPLES

TRIM = 2 * FRAME_SAMPLES                     # samples cut at the start: hibari begins with 0.2 to 0.3 s of silence
LONGEST_S, SHORTEST_S = 16.0, 0.25
SHARD = 1000                                 # texts
PROCESSES = 2
CODEC = CodecConfig(kind="lite", codebook=1024)


@dataclass(frozen=True)
class Utterance:
    """A sentence as the voice learns it.

    phonemes: (P,) ids from 1;  pointer: (T,) the phoneme at the middle of each frame;  codes: (7, T)
    """

    phonemes: np.ndarray
    pointer: np.ndarray
    codes: np.ndarray


def sentences(teacher: Teacher, texts: Sequence[str], first: int) -> Iterator[Spoken]:
    """Every sentence of the texts, trimmed; the seed of the noise is the text's number."""
    for number, text in enumerate(texts, first):
        for phonemes in teacher.phonemize(text):
            spoken = teacher.say(phonemes, seed=number)
            if SHORTEST_S <= (len(spoken.wave) - TRIM) / RATE <= LONGEST_S and len(spoken.phonemes):
                yield Spoken(spoken.phonemes, max(0, spoken.start - TRIM), spoken.ends - TRIM, spoken.wave[TRIM:])


def pointer_of(spoken: Spoken, frames: int) -> np.ndarray:
    """The phoneme that is spoken at the middle of each frame; silence at the end belongs to the last one."""
    middles = (np.arange(frames) + 0.5) * FRAME_SAMPLES
    return np.minimum(np.searchsorted(spoken.ends, middles, side="right"), len(spoken.phonemes) - 1)


def write_waves(texts: Sequence[str], target: Path) -> float:
    """All sentences, one after the other, as int16 at 24 kHz; returns the hours."""
    teacher = Teacher()
    waves = [(one.wave.clip(-1, 1) * 32767).astype(np.int16) for one in sentences(teacher, texts, 0)]
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        np.savez(file, waves=np.concatenate(waves), lengths=np.array([len(one) for one in waves]))
    return sum(map(len, waves)) / RATE / 3600


def write_codes(texts: Sequence[str], folder: Path, codec: Path, say: Callable[[str], None] = print) -> list[Path]:
    """Codes and pointers of all texts, in shards of `SHARD` texts; shards that are there already are kept."""
    jobs = [(number, list(texts[number : number + SHARD]), folder / f"speech-{number // SHARD:04d}.npz")
            for number in range(0, len(texts), SHARD)]
    open_jobs = [job for job in jobs if not job[2].exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for done, _ in enumerate(pool.imap_unordered(partial(write_shard, codec=codec), open_jobs), 1):
            if done % 10 == 0 or done == len(open_jobs):
                say(f"speech  {done} of {len(open_jobs)} shards")
    return [path for _, _, path in jobs]


_loaded: dict[Path, tuple] = {}              # the teacher and the codec of this process


def write_shard(job: tuple[int, list[str], Path], codec: Path) -> None:
    """Speak and encode some texts."""
    from omni_lite.load import load_codec

    torch.set_num_threads(1)
    if codec not in _loaded:
        _loaded[codec] = (Teacher(), load_codec(CODEC, codec))
    teacher, coder = _loaded[codec]
    first, texts, target = job
    ids = {one: number for number, one in enumerate(alphabet(), 1)}
    phonemes, pointers, codes = [], [], []
    for spoken in sentences(teacher, texts, first):
        codes.append(coder.encode(torch.from_numpy(spoken.wave)[None, None])[0].numpy().astype(np.int16))
        phonemes.append(np.array([ids[one] for one in spoken.phonemes], np.uint8))
        pointers.append(pointer_of(spoken, codes[-1].shape[1]).astype(np.int16))
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, phonemes=np.concatenate(phonemes), pointers=np.concatenate(pointers),
            codes=np.concatenate(codes, axis=1), phoneme_counts=np.array(list(map(len, phonemes))),
            frame_counts=np.array(list(map(len, pointers))))


def read_shards(paths: Sequence[Path]) -> list[Utterance]:
    """All sentences of some shards."""
    out: list[Utterance] = []
    for path in paths:
        with np.load(path) as shard:
            found = {name: shard[name] for name in shard.files}
        at = [np.cumsum(found[name])[:-1] for name in ("phoneme_counts", "frame_counts")]
        out += map(Utterance, np.split(found["phonemes"], at[0]), np.split(found["pointers"], at[1]),
                   np.split(found["codes"], at[1], axis=1))
    return out
