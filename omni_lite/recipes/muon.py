"""Muon, an optimizer for the matrices between layers, combined with AdamW for all other parameters."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from omni_lite.model import OmniModel
from omni_lite.precision import bf16_pays


class Muon(torch.optim.Muon):
    """torch's Muon, with Nesterov momentum and AdamW's step size ("match_rms_adamw").

    torch always orthogonalizes in bfloat16. On machines with slow bfloat16 this class uses float32: a step of the ASR
    adapter takes 0.2 s instead of 17. It also batches matrices of one shape, which saves a third of the trunk's time on
    two CPU cores and nine tenths of the TTS adapter's calls on a GPU.
    """

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every matrix that has a gradient."""
        dtype = torch.bfloat16 if bf16_pays(self.param_groups[0]["params"][0].device.type) else torch.float32
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            momentum, rate = group["momentum"], group["lr"]
            settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, matrices in by_shape.items():
                for p in matrices:
                    if "momentum_buffer" not in self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                gradients = [p.grad for p in matrices if p.grad is not None]
                buffers = [self.state[p]["momentum_buffer"] for p in matrices]
                torch._foreach_lerp_(buffers, gradients, 1 - momentum)
                ahead = torch.stack(torch._foreach_lerp(gradients, buffers, momentum))
                updates = orthogonalized(ahead.to(dtype), *settings).to(ahead.dtype)
                torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
                torch._foreach_add_(matrices, updates.unbind(0), alpha=-rate * 0.2 * math.sqrt(max(shape)))
        return loss


def orthogonalized(matrices: Tensor, coefficients: tuple[float, float, float], rounds: int, eps: float) -> Tensor:
    """Bring all singular values of each matrix near 1, in the matrices' dtype: (n, rows, columns) -> the same.

    Source: the Newton-Schulz iteration of Jordan et al. 2024, kellerjordan.github.io/posts/muon
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(rounds):                  # x <- (a + b S + c S^2) x, S = x x^T
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def inner_matrices(model: OmniModel, parts: Iterable[str]) -> set[nn.Parameter]:
    """The matrices between layers of these parts: all but embeddings and heads."""
    heads = {model.text_head, model.tts_adapter.head if model.tts_adapter is not None else None}
    return {cast(nn.Parameter, m.weight) for name in parts for m in model.get_submodule(name).modules()
            if isinstance(m, nn.Linear) and m not in heads}


@dataclass(frozen=True)
class MuonAndAdamW:
    """Makes the optimizers of a `Loop`: Muon for `matrices`, AdamW for all other parameters.

    Muon equalises the singular values of an update, so weak directions learn too. Its step size matches AdamW's, so
    both share one learning rate. Sources: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Moonlight, arXiv
    2502.16982.

    rates: factors of the learning rate; 1 for all parameters without one
    """

    matrices: Collection[nn.Parameter] = frozenset()
    rates: Mapping[nn.Parameter, float] = field(default_factory=dict)

    def __call__(self, trained: list[nn.Parameter], peak: float) -> list[torch.optim.Optimizer]:
        groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
        for p in trained:
            groups.setdefault((p in self.matrices, p.dim() > 1, self.rates.get(p, 1.0)), []).append(p)
        kinds: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for (muon, _, rate), group in groups.items():
            kinds[muon].append(dict(params=group, weight_decay=0.0, rate=rate))
        optimizers: list[torch.optim.Optimizer] = []
        if kinds[False]:
            optimizers.append(torch.optim.AdamW(kinds[False], lr=peak, betas=(0.9, 0.98), fused=True))
        if kinds[True]:
            optimizers.append(Muon(kinds[True], lr=peak))
        return optimizers


def optimizers_of(model: OmniModel, muon: Iterable[str], rates: Mapping[str, float]) -> MuonAndAdamW:
    """`MuonAndAdamW` by names of parts: `muon` updates their inner matrices, `rates` scales their learning rates."""
    return MuonAndAdamW(inner_matrices(model, muon), {p: rate for name, rate in rates.items()
                                                      for p in model.get_submodule(name).parameters()})
