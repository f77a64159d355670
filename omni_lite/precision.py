"""Mixed precision: bfloat16 where the machine has instructions for it, float32 elsewhere.

A CPU without such instructions still takes bfloat16, and works it out number by number: a product of matrices then
takes a hundred times as long as in float32 (0.9 against 115 GFLOP/s on two AVX2 cores; 400 against 180 on two with
AVX-512 bf16). So whoever trains or hears for training asks here, and what is written for one machine runs on another.
"""

import torch


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
