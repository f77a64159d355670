"""One resumable training loop for all models: schedule, gradient accumulation, saving, progress."""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from omni_lite.audio import atomic_write

SAVE_SECONDS = 60.0                          # an interrupted run loses at most this much work
REPORT_SECONDS = 15.0
WORKERS = 6                                  # processes that make batches for a GPU, at most

Optimizers = Callable[[list[nn.Parameter], float], list[torch.optim.Optimizer]]


def cosine(step: int, steps: int, peak: float, end: float, warmup: int) -> float:
    """Learning rate of a step: linear warm-up to `peak`, then half a cosine down to `end`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def adamw(trained: list[nn.Parameter], peak: float, decay: float = 0.0) -> list[torch.optim.Optimizer]:
    """AdamW on all parameters; weight decay acts only on matrices."""
    kinds = {False: [p for p in trained if p.dim() < 2], True: [p for p in trained if p.dim() > 1]}
    groups = [dict(params=group, weight_decay=decay * matrix) for matrix, group in kinds.items() if group]
    return [torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)]


@dataclass
class Loop:
    """Runs a training to its last step, or resumes an interrupted one.

    modules:    what is saved and restored
    trained:    parameters that the optimizers may change
    folder:     where the state is saved; None: nowhere
    warmup:     steps in which the learning rate rises
    accumulate: batches whose mean gradient makes one step
    optimizers: makes the optimizers; a group's "rate" scales its learning rate
    each:       called after every step with its number, from 0, and its losses
    """

    name: str
    modules: nn.Module
    trained: list[nn.Parameter]
    steps: int
    peak: float
    end: float
    folder: Path | None
    warmup: int = 100
    clip: float = 1.0
    accumulate: int = 1
    optimizers: Optimizers = adamw
    say: Callable[[str], None] = print
    each: Callable[[int, dict[str, float]], None] | None = None

    def run(self, batches: Callable[[int], Iterator[Any]], losses: Callable[[Any], dict[str, Tensor]],
            after: Callable[[int], None] | None = None) -> None:
        """Take the remaining steps.

        batches: makes the iterator that starts at the given step
        losses:  of one batch: "loss" and other scalars to show
        raises:  ValueError if a loss or a gradient is not finite; the last saved state is kept
        """
        optimizers = self.optimizers(self.trained, self.peak)
        first, spent = self._resume(optimizers)
        stream = batches(first)
        began = saved = shown = time.time()
        sums: dict[str, float] = {}
        seen = 0
        for step in range(first, self.steps):
            floats = self._backward([next(stream) for _ in range(self.accumulate)], losses)
            length = float(nn.utils.clip_grad_norm_(self.trained, self.clip))
            if not math.isfinite(floats["loss"] + length):
                raise ValueError(f"{self.name} stops at step {step + 1} with loss {floats['loss']} and gradient norm "
                                 f"{length}: lower the learning rate; the last saved state is kept.")
            rate = cosine(step, self.steps, self.peak, self.end, self.warmup)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group.get("rate", 1.0) * rate
                optimizer.step()
            if after is not None:
                after(step)
            seen += 1
            sums = {key: sums.get(key, 0.0) + floats.get(key, 0.0) for key in sums | floats}
            if self.each is not None:
                self.each(step, floats)
            now = time.time()
            if now - shown > REPORT_SECONDS or step + 1 == self.steps:
                left = (now - began) / (step + 1 - first) * (self.steps - step - 1)
                means = "  ".join(f"{key} {total / seen:.4f}" for key, total in sums.items())
                self.say(f"{self.name}  step {step + 1}/{self.steps}  {means}  {left / 60:.1f} min left")
                shown, seen, sums = now, 0, {}
            if now - saved > SAVE_SECONDS or step + 1 == self.steps:
                self._save(optimizers, step + 1, spent + now - began)
                saved = now

    def _backward(self, batches: list[Any], losses: Callable[[Any], dict[str, Tensor]]) -> dict[str, float]:
        """Compute the gradients of the batches' mean loss; returns the means of all scalars."""
        floats: dict[str, float] = {}
        for p in self.trained:
            p.grad = None
        for batch in batches:
            values = losses(batch)
            loss = values["loss"] / len(batches)
            if loss.requires_grad:               # False if the batch has no target that counts
                loss.backward()
            for key, value in values.items():
                floats[key] = floats.get(key, 0.0) + float(value.detach()) / len(batches)
        return floats

    @property
    def state_file(self) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.name}.pt"

    def _save(self, optimizers: list[torch.optim.Optimizer], step: int, seconds: float) -> None:
        if self.state_file is None:
            return
        state = dict(step=step, seconds=seconds, model=self.modules.state_dict(),
                     optimizers=[one.state_dict() for one in optimizers], random=torch.get_rng_state())
        with atomic_write(self.state_file) as temporary:
            torch.save(state, temporary)

    def _resume(self, optimizers: list[torch.optim.Optimizer]) -> tuple[int, float]:
        if self.state_file is None or not self.state_file.exists():
            return 0, 0.0
        state = torch.load(self.state_file, weights_only=True, map_location="cpu")
        if len(state.get("optimizers", ())) != len(optimizers):
            raise ValueError(f"{self.state_file} comes from a training with other optimizers: delete it to "
                             f"start {self.name} from its first step.")
        self.modules.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["random"])
        self.say(f"{self.name}  goes on at step {state['step']}/{self.steps}")
        return state["step"], state["seconds"]


class Made(IterableDataset):
    """What `make(worker)` yields in each worker process; `worker` counts from 0."""

    def __init__(self, make: Callable[[int], Iterator[Any]]) -> None:
        super().__init__()
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        return self.make(0 if info is None else info.id)


def in_workers(make: Callable[[int], Iterator[Any]], device: torch.device) -> Iterator[Any]:
    """Batches for a device: a CPU makes them between the steps, a GPU gets them from worker processes.

    A GPU finishes a batch before Python has made the next one. Each worker draws its own batches.

    make: yields the batches of one process
    """
    if device.type == "cpu":
        return make(0)
    workers = max(1, min(WORKERS, (os.cpu_count() or 1) // 2))
    return iter(DataLoader(Made(make), batch_size=None, num_workers=workers, prefetch_factor=4))
