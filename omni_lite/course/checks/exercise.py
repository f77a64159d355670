"""The base of all checks: a check tests a student's solution and explains a mistake in a sentence.

A check does not raise, so that a notebook runs to its end. It prints one line and returns True for a right answer,
False for a wrong one, None for the stub, which is None.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Wrong(Exception):
    """A mistake in a solution, explained in a sentence to the student."""


def exercise(name: str) -> Callable[[Callable[..., None]], Callable[..., bool | None]]:
    """Turn a function that raises `Wrong` into a check that prints and never raises."""

    def wrap(check: Callable[..., None]) -> Callable[..., bool | None]:
        def run(attempt: Any, *more: Any) -> bool | None:
            if attempt is None:
                print(f"{name}: not tried yet")
                return None
            try:
                check(attempt, *more)
            except Wrong as reason:
                print(f"{name}: not yet. {reason}")
                return False
            except Exception as error:                # the student's own code failed
                print(f"{name}: not yet. Your code stopped with {type(error).__name__}: {error}")
                return False
            print(f"{name}: right")
            return True

        run.__name__, run.__doc__ = check.__name__, check.__doc__
        return run

    return wrap


def same(got: Any, wanted: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Raise `Wrong` unless `got` is a tensor with the wanted shape and values; name the first difference."""
    if not isinstance(got, Tensor):
        raise Wrong(f"{what} should be a tensor, yours is {type(got).__name__}.")
    if got.shape != wanted.shape:
        raise Wrong(f"{what} should have shape {tuple(wanted.shape)}, yours has {tuple(got.shape)}.")
    off = ((got.double() - wanted.double()).abs() > tolerance).nonzero()
    if len(off):
        at = tuple(off[0].tolist())
        raise Wrong(f"{what} differs in {len(off)} of {wanted.numel()} places; at {at} it should be "
                    f"{wanted[at].item():.6g}, yours is {got[at].item():.6g}.")


def seeded(seed: int = 0) -> torch.Generator:
    """A random generator that gives every student the same inputs."""
    return torch.Generator().manual_seed(seed)
