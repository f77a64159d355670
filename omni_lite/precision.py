"""Mixed precision: bfloat16 if the machine has instructions for it, otherwise float32.

A CPU without such instructions computes bfloat16 number by number. A matrix product then takes a hundred times as
long as in float32: 0.9 against 115 GFLOP/s on two AVX2 cores, but 400 against 180 on two cores with AVX-512 bf16.
"""

import torch


def bf16_pays(device: str = "cpu") -> bool:
    """Whether this device ("cpu", "cuda" or "mps") has instructions for bfloat16 matrix products."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()


def mixed_precision(device: str = "cpu", wanted: bool = True) -> torch.autocast:
    """A `with` block that computes products in bfloat16, if that is `wanted` and pays; otherwise it does nothing.

    Weights, sums and the operations of autocast's own list stay in float32.
    """
    return torch.autocast(device, torch.bfloat16, enabled=wanted and bf16_pays(device))
