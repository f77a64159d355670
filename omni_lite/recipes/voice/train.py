"""Training the voice on packed sentences: next codes of seven delayed streams, and the pointer's advance."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_lite.loop import Loop, adamw, in_workers
from omni_lite.precision import mixed_precision
from omni_lite.recipes.muon import Muon
from omni_lite.recipes.voice.speech import Utterance
from omni_lite.streams import IGNORE, delay_streams
from omni_lite.vocab import NUM_STREAMS
from omni_lite.voice.model import Voice, VoiceConfig


@dataclass(frozen=True)
class VoicePlan:
    """How the voice is trained.

    length:  steps of one packed sequence;  batch: sequences of a step
    wrong:   largest share of random past codes in a sequence
    weights: of the streams' losses; coarse codes carry the words
    """

    steps: int = 12_000
    batch: int = 8
    length: int = 256
    peak: float = 2e-3
    end: float = 2e-5
    warmup: int = 200
    decay: float = 0.05
    wrong: float = 0.15
    weights: tuple[float, ...] = (3.0, 1.5, 1.0, 1.0, 1.5, 1.0, 1.0)
    muon: bool = True


class Packed(NamedTuple):
    """Sequences of sentences: inputs of `Voice.forward`, and targets."""

    ids: Tensor                              # (B, P)
    pointer: Tensor                          # (B, S)
    stay: Tensor                             # (B, S)
    past: Tensor                             # (B, 7, S)
    codes: Tensor                            # (B, 7, S), IGNORE where there is no target
    advance: Tensor                          # (B, S)


def stays(pointer: np.ndarray, most: int) -> np.ndarray:
    """For how many steps the pointer has not moved, at most `most - 1`."""
    changed = np.concatenate([[True], pointer[1:] != pointer[:-1]])
    last = np.maximum.accumulate(np.where(changed, np.arange(len(pointer)), 0))
    return np.minimum(np.arange(len(pointer)) - last, most - 1)


def pack(utterances: Sequence[Utterance], config: VoiceConfig, length: int) -> tuple[np.ndarray, ...]:
    """One sequence of `length` steps; the last sentence is cut.

    The pointer counts phonemes without the padding between sentences, so its difference is the advance.
    returns: ids, pointer, stay, past, codes, advance, as in `Packed`, without the batch
    """
    gap = np.zeros(config.lookahead, np.int64)
    ids: list[np.ndarray] = []
    places, counted, codes = [], [], []
    at = number = 0
    for one in utterances:
        places.append(at + one.pointer.astype(np.int64))
        counted.append(number + one.pointer.astype(np.int64))
        codes.append(one.codes.astype(np.int64))
        ids += [one.phonemes.astype(np.int64), gap]
        at, number = at + len(one.phonemes) + len(gap), number + len(one.phonemes)
    pointer, count = np.concatenate(places), np.concatenate(counted)
    advance = np.concatenate([np.diff(count), [IGNORE]])
    advance = np.where(advance >= 0, np.minimum(advance, config.advances - 1), IGNORE)
    whole = torch.from_numpy(np.concatenate(codes, axis=1))
    shifted = delay_streams(whole, config.codebook)[:, 1 : 1 + whole.shape[1]].numpy()   # stream i lags i steps
    past = np.concatenate([np.full((NUM_STREAMS, 1), config.codebook), shifted[:, :-1]], axis=1)
    target = np.where(shifted == config.codebook, IGNORE, shifted)
    stay = stays(count, config.stays)
    return (np.concatenate(ids), pointer[:length], stay[:length], past[:, :length], target[:, :length],
            advance[:length])


def batches(utterances: Sequence[Utterance], config: VoiceConfig, plan: VoicePlan, seed: int) -> Iterator[Packed]:
    """Endless batches; every pass goes through the sentences in another order."""
    rng = random.Random(f"voice {seed}")
    waiting: list[int] = []
    while True:
        rows = []
        for _ in range(plan.batch):
            chosen: list[Utterance] = []
            while sum(len(one.pointer) for one in chosen) < plan.length:
                if not waiting:
                    waiting = rng.sample(range(len(utterances)), len(utterances))
                chosen.append(utterances[waiting.pop()])
            rows.append(pack(chosen, config, plan.length))
        most = max(len(row[0]) for row in rows)
        ids = np.stack([np.pad(row[0], (0, most - len(row[0]))) for row in rows])
        columns = list(zip(*rows, strict=True))[1:]
        yield Packed(torch.from_numpy(ids), *(torch.from_numpy(np.stack(column)) for column in columns))


def with_wrong_codes(past: Tensor, codebook: int, share: float) -> Tensor:
    """Replace past codes by random ones, in each sequence another share between 0 and `share`."""
    shares = torch.rand(len(past), 1, 1, device=past.device) * share
    wrong = (torch.rand(past.shape, device=past.device) < shares) & (past < codebook)
    return torch.where(wrong, torch.randint_like(past, codebook), past)


def voice_loss(model: Voice, batch: Packed, plan: VoicePlan) -> dict[str, Tensor]:
    """Cross-entropy of the codes, weighted by stream, plus that of the advance."""
    past = with_wrong_codes(batch.past, model.config.codebook, plan.wrong) if model.training else batch.past
    with mixed_precision(past.device.type):
        codes, advance = model(batch.ids, batch.pointer, batch.stay, past)
    each = F.cross_entropy(codes.float().permute(0, 3, 1, 2), batch.codes, ignore_index=IGNORE, reduction="none")
    counts = (batch.codes != IGNORE).sum((0, 2)).clamp(min=1)
    streams = each.sum((0, 2)) / counts
    weights = torch.tensor(plan.weights, device=streams.device)
    moves = F.cross_entropy(advance.float().flatten(0, 1), batch.advance.flatten(), ignore_index=IGNORE)
    loss = (streams * weights).sum() / weights.sum() + moves
    return dict(loss=loss, coarse=streams[0].detach(), all=streams.mean().detach(), advance=moves.detach())


def optimizers(model: Voice, plan: VoicePlan, trained: list[nn.Parameter], peak: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW for all other parameters."""
    if not plan.muon:
        return adamw(trained, peak, plan.decay)
    inner = {one.weight for one in model.modules() if isinstance(one, nn.Linear)}
    inner -= {model.heads.weight, model.advance.weight}
    muon = Muon([p for p in trained if p in inner], lr=peak, weight_decay=plan.decay)
    return [muon, *adamw([p for p in trained if p not in inner], peak, plan.decay)]


def train_voice(model: Voice, utterances: Sequence[Utterance], plan: VoicePlan, folder: Path, say: Any = print) -> None:
    """Train, or go on where an interrupted training was."""
    torch.manual_seed(0)
    device = model.heads.weight.device

    def stream(first: int) -> Iterator[Packed]:
        return in_workers(lambda worker: batches(utterances, model.config, plan, 1000 * first + worker), device)

    def losses(batch: Packed) -> dict[str, Tensor]:
        return voice_loss(model, Packed(*(one.to(device) for one in batch)), plan)

    model.train()
    loop = Loop("voice", model, list(model.parameters()), plan.steps, plan.peak, plan.end, folder, warmup=plan.warmup,
                optimizers=partial(optimizers, model, plan), say=say)
    loop.run(stream, losses)
    model.eval()
