"""Run one lite phase: the paper's `train_phase` with the recipe's losses, transforms and optimizers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from omni_lite.model import OmniModel
from omni_lite.recipes.attention import GuidedAttention
from omni_lite.recipes.compiling import compiled
from omni_lite.recipes.ctc import TaughtBy
from omni_lite.recipes.lite.items import Corpus
from omni_lite.recipes.lite.phases import LitePhase
from omni_lite.recipes.lite.reading import AsTyped, render, with_snippets
from omni_lite.recipes.muon import optimizers_of
from omni_lite.recipes.transforms import Mask
from omni_lite.train import AuxiliaryLoss, train_phase


def ready_losses(phase: LitePhase, model: OmniModel, corpus: Corpus) -> list[AuxiliaryLoss]:
    """The phase's auxiliary losses, made ready for the model and the tokenizer."""
    losses: list[AuxiliaryLoss] = []
    for one in phase.losses:
        if isinstance(one, GuidedAttention):
            one = one.ready(corpus.tokenizer, model.config.vocab)
        elif isinstance(one, AsTyped):
            one = one.ready(model)
        losses.append(one)
    return losses


def train_lite_phase(model: OmniModel, phase: LitePhase, corpus: Corpus, folder: Path | None = None, *,
                     say: Callable[[str], None] = print, teachers: Sequence[nn.Module] = (), **how: Any) -> None:
    """Train one phase on the corpus.

    folder: for the saved state, see `loop.Loop`;  how: `warmup`, `each` and `seed` of `train_phase`
    teachers: ASR adapters of earlier phases, for a phase with `Distillation`
    """
    reads = any(kind.startswith("pseudo") for kind in phase.mixture)
    if reads and corpus.snippets is None:
        corpus = with_snippets(corpus, model, next((one.share for one in phase.transforms if isinstance(one, Mask)), 0))
    taught = [TaughtBy(tuple(teachers), model.config.ear.stack)] if teachers else []
    with compiled(model, phase.steps):
        train_phase(
            model, phase, lambda: corpus.draw(phase.mixture, phase.misheard, phase.shuffled), corpus.store, folder,
            losses=ready_losses(phase, model, corpus), transforms=[*taught, *phase.transforms],
            stream_weights=phase.stream_weights, edit=render if reads else None,
            optimizers=optimizers_of(model, phase.muon, phase.rates), say=say, **how)


