"""Encoder features of the training clips, a share of them augmented."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from omni_lite.data import Row
from omni_lite.hear import Ears
from omni_lite.recipes.augment import augment


def hear_all(ears: Ears, rows: Sequence[Row], augmented: float = 0.6, seed: int = 0, group: int = 512,
             say: Callable[[str], None] = print) -> Iterator[tuple[Tensor, Tensor]]:
    """Features of every row's question: clip i is row i."""
    waves = [row.question_wav for row in rows if row.question_wav is not None]
    assert len(waves) == len(rows), "every row needs its question as sound"
    groups = (waves[first : first + group] for first in range(0, len(waves), group))
    return hear_groups(ears, groups, len(waves), augmented, seed, say)


def hear_groups(ears: Ears, groups: Iterable[Sequence[Tensor]], total: int, augmented: float = 0.6, seed: int = 0,
                say: Callable[[str], None] = print) -> Iterator[tuple[Tensor, Tensor]]:
    """Features of clips, group by group, so that only one group's sound is in memory.

    groups:    lists of clips, (N,) float32 at 16 kHz; a clip's babble comes from its group
    total:     number of all clips;  augmented: share of the clips to augment
    """
    rng = np.random.default_rng(seed)
    began, done = time.time(), 0
    for group in groups:
        waves = [wave.numpy() for wave in group]
        heard = [augment(wave, rng, waves) if rng.random() < augmented else wave for wave in waves]
        yield ears.features([torch.from_numpy(wave) for wave in heard], bf16=True)
        done += len(waves)
        left = (time.time() - began) / done * (total - done)
        say(f"features  {done}/{total} clips  {left / 60:.1f} min left")
