"""The paper's training: phases as data, one loss, one function that runs any of them.

    phase 1a  trains the ASR adapter; the language model is frozen
    phase 1b  trains the TTS adapter and the audio embeddings; the language model is frozen
    phase 2   trains the language model; both adapters are frozen
    phase 3   trains everything

`recipes/paper.py` holds the paper's phase table. Recipes pass in auxiliary losses and transforms.

Sources: arXiv 2408.16725, section 3.3; loss as in gpt-omni/mini-omni issues 117 and 122.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from omni_lite.data import Heard, Item, Store, batches
from omni_lite.loop import Loop, Optimizers, adamw, in_workers
from omni_lite.model import OmniModel
from omni_lite.precision import mixed_precision
from omni_lite.streams import IGNORE
from omni_lite.vocab import Vocab

LANGUAGE_MODEL = ("text_embed", "text_head", "trunk")
EVERYTHING = (*LANGUAGE_MODEL, "audio_embed", "asr_adapter", "tts_adapter")


@dataclass(frozen=True)
class Phase:
    """One row of the phase table.

    trains:     parts of `OmniModel` that may change; `train_phase` freezes all others and checks them
    mixture:    share of each kind of training example: the five tasks, or other kinds of a recipe's samplers
    peak, end:  learning rates of the cosine schedule
    batch_positions: positions in a batch, padding included
    accumulate: batches a step
    rows:       which next-token losses count; with () only auxiliary losses count and the language model does not run
    """

    name: str
    trains: tuple[str, ...]
    mixture: Mapping[str, float] = field(hash=False)
    steps: int
    peak: float
    end: float
    batch_positions: int = 2048
    accumulate: int = 1
    rows: tuple[str, ...] = ("text", "audio")


@dataclass
class Forward:
    """What one forward pass computed, for auxiliary losses; tensors are on the model's device.

    adapted:   (B, n, D) output of the ASR adapter; None without spoken questions
    positions: (B,) how many of the n positions each question has
    inputs:    (B, S, D) the input of each watched module
    hidden:    (n, D) of the trunk at the n targets of the text stream;  logits: (n, V_text)
    """

    model: OmniModel
    heard: Heard
    positions: Tensor | None = None
    adapted: Tensor | None = None
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    hidden: Tensor | None = None
    logits: Tensor | None = None


class AuxiliaryLoss(Protocol):
    """A training loss besides next-token cross-entropy; `weight` times its value is added.

    watches: modules whose inputs the loss reads in `Forward.inputs`
    """

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    def watches(self, model: OmniModel) -> Sequence[nn.Module]: ...

    def __call__(self, forward: Forward) -> Tensor | None:
        """A scalar, or None if the loss does not apply to this batch."""


Transform = Callable[[Heard, Vocab], Heard]  # changes a batch before the model sees it
Edit = Callable[[OmniModel, Tensor, Heard], Tensor]  # changes what the trunk reads: (B, S, D) -> (B, S, D)


# --- the loss -------------------------------------------------------------------------------------------


class NextToken(torch.autograd.Function):
    """`F.cross_entropy` in the dtype of the logits, with one softmax for forward and backward.

    It takes 39 ms instead of 223 on one core for 1,500 steps x 7 streams x 1,088 ids.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """logits (n, V), targets (n,) int64 with IGNORE, weights (n,) -> weighted mean, float32."""
        counts = (targets != IGNORE) * (1.0 if weights is None else weights)
        index = targets.clamp(min=0)
        with torch.autocast(logits.device.type, enabled=False):
            p = logits.softmax(-1)
        said = p.gather(1, index[:, None])[:, 0].float()
        weight = counts / counts.sum()
        ctx.save_for_backward(p, index, weight)
        return -(said.clamp(min=1e-30).log() * weight).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """d loss / d logits = (p - one-hot) * weight."""
        p, index, weight = ctx.saved_tensors
        p[torch.arange(len(p), device=p.device), index] -= 1                   # in place: there is one backward pass
        return p.mul_((weight * grads[0])[:, None].to(p.dtype)), None, None


def next_token_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of (n, V) logits and (n,) targets other than IGNORE, weighted by (n,) `weights`."""
    return cast(Tensor, NextToken.apply(logits, targets, weights))


def omni_loss(model: OmniModel, heard: Heard, rows: Sequence[str] = ("text", "audio"),
              losses: Sequence[AuxiliaryLoss] = (), stream_weights: Sequence[float] = (),
              edit: Edit | None = None) -> dict[str, Tensor]:
    """Next-token cross-entropy of the text stream, plus its mean over the seven audio streams.

    rows:    which of the two count in "loss"; both are reported. With () the language model does not run
    losses:  auxiliary losses, each reported under its name
    stream_weights: weight of a code of each audio stream in the mean; (): equal weights, as in the paper
    edit:    changes what the trunk reads
    returns: scalars "loss" (to call backward on), "text", "audio" if any sequence speaks, and the auxiliary losses

    Heads run only at targets; the TTS blocks run only on the sequences that speak.
    """
    device = model.bands.device
    seen = Forward(model, heard)
    if heard.features is not None and heard.lengths is not None:
        seen.adapted, seen.positions = model.adapt(heard.features.to(device), heard.lengths)
    out: dict[str, Tensor] = {}
    if rows:
        watched = [module for one in losses for module in one.watches(model)]
        with watching(watched, seen.inputs):
            loss = _next_token_losses(seen, rows, stream_weights, edit, out)
    else:
        loss = torch.zeros((), device=device)
    for one in losses:
        value = one(seen)
        if value is not None:
            out[one.name] = value
            loss = loss + one.weight * value
    return {"loss": loss, **out}


def _next_token_losses(seen: Forward, rows: Sequence[str], stream_weights: Sequence[float], edit: Edit | None,
                       out: dict[str, Tensor]) -> Tensor:
    """The sum of the losses in `rows`. Puts every loss into `out` and the intermediate results into `seen`."""
    model, heard = seen.model, seen.heard
    device, here = model.bands.device, heard.batch
    batch = here.to(device)
    adapted = None if seen.adapted is None or seen.positions is None else (seen.adapted, seen.positions)
    x = model.embed(batch.text_in, batch.audio_in, adapted=adapted)
    if edit is not None:
        x = edit(model, x, heard)
    hidden = model.run(x)
    # The masks come from the batch on the CPU: reading them from a GPU would wait for all its work.
    says = here.text_target != IGNORE                                      # (B, S)
    seen.hidden = hidden[says]
    seen.logits = model.text_logits(seen.hidden)
    out["text"] = next_token_loss(seen.logits, batch.text_target[says])
    loss = out["text"] if "text" in rows else torch.zeros((), device=device)
    speaking = heard.speaks                                                # (B,)
    if not speaking.any():
        return loss
    talk = here.pick(speaking)
    targets = talk.audio_target.transpose(1, 2)                            # (b, S, 7)
    sounds = (targets != IGNORE).any(-1)                                   # (b, S)
    voice_text = talk.text_in if heard.voice_text is None else heard.voice_text
    spoken = model.speak(hidden[speaking], text_ids=voice_text.to(device))
    logits = model.audio_head(spoken[sounds])                              # (n, 7, V_audio)
    weights = torch.tensor(stream_weights, device=device).repeat(len(logits)) if stream_weights else None
    out["audio"] = next_token_loss(logits.flatten(0, 1), targets[sounds].flatten().to(device), weights)
    return loss + out["audio"] if "audio" in rows else loss


@contextmanager
def watching(modules: Sequence[nn.Module], inputs: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Record the first argument of each module's call in `inputs` while the context lasts."""
    with ExitStack() as stack:
        for module in dict.fromkeys(modules):

            def note(module: nn.Module, args: tuple[Any, ...]) -> None:
                inputs[module] = args[0]

            stack.callback(module.register_forward_pre_hook(note).remove)
        yield


# --- one phase ------------------------------------------------------------------------------------------


def freeze(model: OmniModel, phase: Phase) -> list[nn.Parameter]:
    """Freeze all parts that the phase does not train; returns the trained parameters."""
    for name, part in model.named_children():
        part.requires_grad_(name in phase.trains)
    return [p for p in model.parameters() if p.requires_grad]


def train_phase(
    model: OmniModel,
    phase: Phase,
    draw: Callable[[], Iterator[Item]],
    store: Store | None,
    folder: Path | None = None,
    *,
    losses: Sequence[AuxiliaryLoss] = (),
    transforms: Sequence[Transform] = (),
    stream_weights: Sequence[float] = (),
    edit: Edit | None = None,
    optimizers: Optimizers = adamw,
    say: Callable[[str], None] = print,
    warmup: int = 100,
    each: Callable[[int, dict[str, float]], None] | None = None,
    seed: int = 0,
) -> None:
    """Run one phase, then check that the frozen parts did not change.

    draw:    makes an endless iterator of training examples, see `data.draw_items`;  store: features of their clips
    losses, stream_weights, edit: see `omni_loss`;  transforms: change each batch, in order
    folder, warmup, each, optimizers: see `Loop`;  seed: of the drawn examples
    """
    torch.manual_seed(seed)
    vocab, stack, device = model.config.vocab, model.config.ear.stack, model.bands.device

    def batches_from(first: int) -> Iterator[Heard]:
        def drawn(worker: int) -> Iterator[Heard]:
            apart = f" {worker} {first}" if device.type != "cpu" else ""
            random.seed(f"{phase.name} {seed}{apart}")
            return batches(draw(), vocab, stack, store, phase.batch_positions)

        stream = in_workers(drawn, device)
        done = first * phase.accumulate if device.type == "cpu" else 0     # batches that an interrupted run has used
        return islice(stream, done, None)

    def losses_of(heard: Heard) -> dict[str, Tensor]:
        for transform in transforms:
            heard = transform(heard, vocab)
        # Sequences are short: on a CPU plain attention is a fifth faster than fused attention.
        attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
        with mixed_precision(device.type), attention:
            return omni_loss(model, heard, phase.rows, losses, stream_weights, edit)

    trained = freeze(model, phase)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    loop = Loop(phase.name, model, trained, phase.steps, phase.peak, phase.end, folder, warmup,
                accumulate=phase.accumulate, optimizers=optimizers, say=say, each=each)
    model.train()
    try:
        with silence_held(model) if "text_embed" not in phase.trains else nullcontext():
            loop.run(batches_from, losses_of)
    finally:
        model.eval()
    for name, before in frozen.items():
        if not torch.equal(before, model.get_parameter(name)):
            raise AssertionError(f"{phase.name} changed {name}, which is frozen in it: this is a bug of the loop.")


@contextmanager
def silence_held(model: OmniModel) -> Iterator[None]:
    """Freeze the embeddings of pad_a while the context lasts.

    Every text step reads them, so training them would change the text path of a frozen language model.
    """
    rows = model.bands.flatten() + model.config.vocab.pad_a

    def hold(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[rows] = 0
        return gradient

    weight = model.audio_embed.weight
    handle = weight.register_hook(hold) if weight.requires_grad else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
