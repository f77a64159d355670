"""Mixed precision: bfloat16 where the machine has instructions for it, float32 elsewhere.

A CPU without such instructions still takes bfloat16, and works it out number by number: a product of matrices then
takes a hundred times as long as in float32 (0.9 against 115 GFLOP/s on two AVX2 cores; 400 against 180 on two with
AVX-512 bf16). So whoever trains or hears for training asks here, and what is written for one machine runs on another.
"""

import math
from typing import Any

import torch
from torch import Tensor


def bf16_pays(device: str = "cpu") -> bool:
    """Whether this machine multiplies bfloat16 matrices by instructions of their own.

    device: "cpu", "cuda" or "mps"
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()


def mixed_precision(device: str = "cpu", wanted: bool = True) -> torch.autocast:
    """A `with` block in which products are computed in bfloat16, if that is `wanted` and pays; else it does nothing.

    Weights, sums and whatever autocast's own list keeps stay in float32.
    """
    return torch.autocast(device, torch.bfloat16, enabled=wanted and bf16_pays(device))


class Muon(torch.optim.Muon):
    """torch's own, with Nesterov's momentum and steps as long as AdamW's ("match_rms_adamw").

    torch's works out every direction in bfloat16, on any machine. Where that does not pay, the same is done here in
    float32: for the ASR adapter of the course 0.2 s a step, not 17. Matrices of one shape are worked out together. On
    two CPU cores that takes two thirds of the time for the trunk of the course. On a GPU, where a product of matrices
    this small takes no longer than to ask for it, the TTS adapter then needs some hundred calls a step, not a thousand.
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
            how = group["ns_coefficients"], group["ns_steps"], group["eps"]
            alike: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for shape, some in alike.items():
                for p in some:
                    if "momentum_buffer" not in self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                gradients = [p.grad for p in some if p.grad is not None]
                buffers = [self.state[p]["momentum_buffer"] for p in some]
                torch._foreach_lerp_(buffers, gradients, 1 - momentum)
                ahead = torch.stack(torch._foreach_lerp(gradients, buffers, momentum))
                ways = orthogonalized(ahead.to(dtype), *how).to(ahead.dtype)
                torch._foreach_mul_(some, 1 - rate * group["weight_decay"])
                torch._foreach_add_(some, ways.unbind(0), alpha=-rate * 0.2 * math.sqrt(max(shape)))
        return loss


def orthogonalized(matrices: Tensor, coefficients: tuple[float, float, float], rounds: int, eps: float) -> Tensor:
    """Bring all singular values of each matrix near 1, in their own precision: (n, rows, columns) -> the same.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon, there and in torch in bfloat16
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(rounds):                  # x <- (a + b S + c S^2) x, S = x x^T
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
