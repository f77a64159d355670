"""OpenMP threads that sleep while they wait, so that a busy machine does not delay an answer.

torch divides each operation among its threads. A thread that is done spins until the others are done too, and a busy
core makes all of them wait (docs/performance.md). OpenMP reads its policy once, when torch is loaded.
"""

import os
import sys

POLICY = "OMP_WAIT_POLICY"


def let_threads_sleep() -> None:
    """Ask OpenMP for sleeping threads, unless a policy is set; this has no effect once torch is loaded."""
    if "torch" not in sys.modules:
        os.environ.setdefault(POLICY, "PASSIVE")


def threads_spin() -> bool:
    """Whether torch's threads may spin."""
    return os.environ.get(POLICY, "").upper() != "PASSIVE"


def use_one_thread_if_they_spin() -> None:
    """Set torch to one thread if its threads may spin: the lite model loses little speed.

    A notebook that imports torch first cannot have sleeping threads.
    """
    import torch

    if threads_spin() and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
