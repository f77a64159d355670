"""Training: the stages as data, and the loops that run any of them, resumably.

The order for a model from nothing:  codec -> text -> phase 1a, 1b -> phase 2 -> phase 3 -> final.
A stage is killed and started again without harm: it goes on from its last saved step.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omni_lite.audio import atomic_write
from omni_lite.codec import LiteSNAC, codec_loss
from omni_lite.vocab import CODEC_RATE

SAVE_SECONDS = 60.0                          # a kill loses at most this much work
REPORT_SECONDS = 15.0


def cosine(step: int, steps: int, peak: float, end: float, warmup: int) -> float:
    """Learning rate of a step: linear warm-up to `peak`, then half a cosine down to `end`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass
class Loop:
    """The part that every stage shares: schedule, autocast, saving, progress.

    modules:  what is saved and restored, by name
    trained:  parameters that the optimizer may change
    """

    name: str
    modules: nn.Module
    trained: list[nn.Parameter]
    steps: int
    peak: float
    end: float
    folder: Path
    warmup: int = 100
    clip: float = 1.0
    say: Callable[[str], None] = print

    def run(self, losses: Callable[[int], dict[str, Tensor]], after: Callable[[int], None] | None = None) -> None:
        """Call `losses(step)`, which gives "loss" and more scalars to show, until `steps` are done.

        `losses` must depend on the step alone (and on torch's global generator, which is restored).
        """
        optimizer = torch.optim.AdamW(self.trained, lr=self.peak, betas=(0.9, 0.98), weight_decay=0.01)
        first, spent = self._resume(optimizer)
        saved = shown = time.time()
        began, seen, sums = time.time(), 0, {}
        for step in range(first, self.steps):
            for group in optimizer.param_groups:
                group["lr"] = cosine(step, self.steps, self.peak, self.end, self.warmup)
            values = losses(step)
            optimizer.zero_grad(set_to_none=True)
            values["loss"].backward()
            nn.utils.clip_grad_norm_(self.trained, self.clip)
            optimizer.step()
            if after is not None:
                after(step)
            seen += 1
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach())
            now = time.time()
            if now - shown > REPORT_SECONDS or step + 1 == self.steps:
                left = (now - began) / (step + 1 - first) * (self.steps - step - 1)
                means = "  ".join(f"{key} {total / seen:.4f}" for key, total in sums.items())
                self.say(f"{self.name}  step {step + 1}/{self.steps}  {means}  {left / 60:.1f} min left")
                shown, seen, sums = now, 0, {}
            if now - saved > SAVE_SECONDS or step + 1 == self.steps:
                self._save(optimizer, step + 1, spent + now - began)
                saved = now

    @property
    def state_file(self) -> Path:
        return self.folder / f"{self.name}.pt"

    def _save(self, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
        state = dict(step=step, seconds=seconds, model=self.modules.state_dict(), optimizer=optimizer.state_dict(),
                     random=torch.get_rng_state())
        with atomic_write(self.state_file) as temporary:
            torch.save(state, temporary)

    def _resume(self, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
        if not self.state_file.exists():
            return 0, 0.0
        state = torch.load(self.state_file, weights_only=True)
        self.modules.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.say(f"{self.name}  goes on at step {state['step']}/{self.steps}")
        return state["step"], state["seconds"]


# --- the codec ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodecPlan:
    """How LiteSNAC is trained."""

    steps: int = 5000
    batch: int = 16
    seconds: float = 1.0                     # length of one crop
    peak: float = 2e-3
    end: float = 2e-5
    reseed_until: float = 0.6                # share of the training in which unused codes are moved
    reseed_every: int = 10


def crops(waves: list[Tensor], seconds: float, batch: int) -> Iterator[Tensor]:
    """Random pieces of speech, longer waves more often: (B, 1, N) float32, gain 0.5 to 1.2."""
    length = int(seconds * CODEC_RATE)
    weights = torch.tensor([float(len(wave)) for wave in waves])
    while True:
        rows = []
        for index in torch.multinomial(weights, batch, replacement=True).tolist():
            wave = waves[index]
            start = int(torch.randint(-length // 4, max(1, len(wave) - length * 3 // 4), ()))
            row = torch.zeros(length)
            piece = wave[max(0, start) : max(0, start + length)].float() / 32768
            row[max(0, -start) : max(0, -start) + len(piece)] = piece
            rows.append(row)
        gain = torch.empty(batch, 1).uniform_(0.5, 1.2)
        yield (torch.stack(rows) * gain).unsqueeze(1)


def train_codec(codec: LiteSNAC, waves: list[Tensor], folder: Path, plan: CodecPlan = CodecPlan(),
                say: Callable[[str], None] = print) -> None:
    """Train the codec to rebuild speech.

    waves: int16 (N,) at 24 kHz
    """
    torch.manual_seed(0)
    batches = crops(waves, plan.seconds, plan.batch)
    codec.train()
    last: dict[str, Any] = {}

    def losses(step: int) -> dict[str, Tensor]:
        wav = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            reconstruction, quantized = codec(wav)
        last["quantized"] = quantized
        return codec_loss(reconstruction, wav, quantized)

    def after(step: int) -> None:
        if step % plan.reseed_every == 0 and step < plan.reseed_until * plan.steps:
            codec.reseed_unused_codes(last["quantized"])

    Loop("codec", codec, list(codec.parameters()), plan.steps, plan.peak, plan.end, folder, say=say).run(losses, after)
    codec.eval()
