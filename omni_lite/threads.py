"""How many threads compute, and that they sleep while they wait: a busy machine must not delay an answer.

torch divides each operation among its threads. A thread that is done spins until the others are done too, and a busy
core makes all of them wait (docs/performance.md). OpenMP reads its policy once, when torch is loaded.
"""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

POLICY = "OMP_WAIT_POLICY"
SMALL = 100_000_000                          # parameters


def let_threads_sleep() -> None:
    """Ask OpenMP for sleeping threads, unless a policy is set; this has no effect once torch is loaded."""
    if "torch" not in sys.modules:
        os.environ.setdefault(POLICY, "PASSIVE")


def use_one_thread_if_small(model: "nn.Module") -> None:
    """Set torch to one thread for a model of under 100 M parameters, unless OMP_NUM_THREADS is set.

    A step of a small model takes as long on one thread as on two, and one thread never waits for another. This also
    helps a notebook that imports torch first: its threads spin.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and sum(p.numel() for p in model.parameters()) < SMALL:
        torch.set_num_threads(1)
