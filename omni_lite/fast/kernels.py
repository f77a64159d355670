"""A matrix product at each precision, with the weight laid out once for many products."""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from omni_lite.precision import bf16_pays

Linear = Callable[[Tensor], Tensor]          # (n, in) -> (n, out)
# The kernels of each precision on a CPU, the default first; a GPU has "plain" alone.
KERNELS = {"fp32": ("plain", "onednn"), "bf16": ("onednn", "plain"), "int8": ("dynamic", "onednn")}
PRECISIONS = tuple(KERNELS)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}  # of activations and cache
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
UNAIDED_ROWS = 24                            # rows up to which bfloat16 pays on a CPU without bfloat16 instructions
COPIED_ELEMENTS = 4_000_000                  # a float32 matrix up to this size is copied and transposed
MATRIX_UNIT_ELEMENTS = 4_000_000             # size from which a CPU's matrix unit pays
ROWS_AT_ONCE = 4096                          # rows of a matrix that become int8 together


def pack_linear(weight: Tensor, bias: Tensor | None, precision: str, kernel: str | None = None) -> Linear:
    """A function that computes about `F.linear(x, weight, bias)` for x (n, in), fast for few rows n.

    weight: (out, in), bias: (out,) or None, of any float dtype; copied if the kernel needs another layout
    kernel: one of KERNELS[precision]; None: its default, which on a GPU is "plain"

    The times are of one product, 2 x 896 by 896 x 9728, on one AVX-512 core. `benchmarks/decode.py` times the
    kernels inside the decoder.
        fp32 plain    4.8 ms   F.linear on a large weight, without a copy if it is float32. A small weight is
                               transposed: on two AVX2 cores 1 x 256 by 256 x 7203 takes 0.4 instead of 1.1 ms
        fp32 onednn   1.3 ms   mkldnn::_linear_pointwise on a weight reordered into blocks
        bf16 onednn   0.35 ms  the same in bfloat16: the kernel that torch.compile's freezing chooses
        bf16 plain    1.2 ms   F.linear in bfloat16, which on some CPUs reorders the weight at every call
        int8 dynamic  0.16 ms  quantized::linear_dynamic (FBGEMM or oneDNN) quantises x inside the call. It reads
                               weights at 25-28 GB/s of memory's 32 (two AVX-512 cores). It needs torch's
                               quantized tensors, which are deprecated (pytorch/pytorch#184982)
        int8 onednn   0.22 ms  onednn::qlinear_pointwise; four small operations quantise x before it. torch.compile
                               lowers int8 models to it. It alone uses a CPU's matrix unit (Intel's AMX): good for
                               a question's 151 rows, bad for a step's two, see `kernel_of_blocks`
    """
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    on_cpu = weight.device.type == "cpu"
    if precision == "int8" and not on_cpu:
        raise ValueError(f"int8 is for a CPU, not for {weight.device.type}: choose bf16 there.")
    if kernel is None:
        kernel = KERNELS[precision][0] if on_cpu else "plain"
        if kernel == "onednn" and not (torch.backends.mkldnn.is_available() and
                                       torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            kernel = "plain"
    if kernel not in KERNELS[precision]:
        raise ValueError(f"{precision} has no kernel {kernel!r}: choose one of {', '.join(KERNELS[precision])}.")
    if precision == "int8":
        pack = _pack_int8_dynamic if kernel == "dynamic" else _pack_int8_onednn
        return pack(weight, None if bias is None else bias.detach().float())
    weight = weight.detach().to(DTYPES[precision])
    bias = None if bias is None else bias.detach().to(weight.dtype)
    if kernel == "plain":
        if on_cpu and precision == "bf16" and not bf16_pays():
            return lambda x: _bf16_unaided(x, weight, bias)
        if on_cpu and precision == "fp32" and weight.numel() <= COPIED_ELEMENTS:
            columns = weight.t().contiguous()
            return (lambda x: torch.mm(x, columns)) if bias is None else lambda x: torch.addmm(bias, x, columns)
        return (lambda x: F.linear(x, weight, bias)) if on_cpu else Plain(weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


class Plain:
    """`F.linear` on a GPU; `add_to` also adds the result to x, in one kernel instead of two."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def add_to(self, x: Tensor, y: Tensor) -> Tensor:
        """x + self(y), written into x."""
        x.addmm_(y, self.weight.t())
        return x if self.bias is None else x.add_(self.bias)


def _bf16_unaided(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` in bfloat16 on a CPU without instructions for it.

    A step has one or two rows and its time goes into reading the weights, so half the bytes pay. A question has
    many rows: float32 is then three times as fast, including the copy of the matrix.
    """
    if len(x) <= UNAIDED_ROWS:
        return F.linear(x, weight, bias)
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def kernel_of_blocks(precision: str, size: int, device: torch.device) -> str | None:
    """The kernel for a matrix of a block, which gets a question's 150 rows and a step's two; None: the default.

    size: elements of the matrix

    Heads never get more than two rows, so they use the default.
    """
    large = precision == "int8" and device.type == "cpu" and size >= MATRIX_UNIT_ELEMENTS
    return "onednn" if large and torch.cpu._is_amx_tile_supported() else None


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise each row to -127..127 with one scale: (out, in) -> codes (out, in) int8, scales (out,) float32.

    codes * scales[:, None] differs from the weight by half a scale at most. The rows are done in groups: otherwise
    a head of 152,000 ids would be in memory as float32 three times.
    """
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), device=weight.device)
    for first in range(0, len(weight), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        rows = weight[some].detach().float()
        scales[some] = (rows.abs().amax(dim=1) / 127).clamp(min=1e-12)
        codes[some] = (rows / scales[some, None]).round()
    return codes, scales


def _peak(x: Tensor) -> Tensor:
    """The largest magnitude of each row, never 0: (..., D) -> (..., 1).

    Every row has its own scale. In a trained model some positions have values a thousand times larger than others
    (arXiv 2402.17762); with one scale for all the small ones would be lost. `torch.linalg.vector_norm` of infinite
    order is one operation, but several times slower on a CPU.
    """
    return x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12)


def _pack_int8_dynamic(weight: Tensor, bias: Tensor | None) -> Linear:
    """The kernel has one scale for all of x, so several rows are divided by their peaks before it."""
    codes, scales = quantize_rows(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")      # the deprecation, see `pack_linear`
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(codes, scales.double(), zeros, 0)
        del codes                            # it was copied; the head's takes 136 MB
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    # Without VNNI instructions pairs of 8-bit products are added in 16 bits, so the values need one bit less.
    spare = not torch.cpu._is_vnni_supported()

    def product(x: Tensor) -> Tensor:
        if len(x) == 1:
            y = torch.ops.quantized.linear_dynamic(x, packed, spare)
            return y if bias is None else y.add_(bias)
        peak = _peak(x)
        y = torch.ops.quantized.linear_dynamic(x / peak, packed, spare)
        return y.mul_(peak) if bias is None else torch.addcmul(bias, y, peak)

    return product


def _pack_int8_onednn(weight: Tensor, bias: Tensor | None) -> Linear:
    """Activations become 1..255 around 128: for signed ones oneDNN has only reference code, 1000 times slower.

    Without VNNI instructions they become 1..127 around 64, see `_pack_int8_dynamic`.
    """
    codes, scales = quantize_rows(weight)
    packed = torch.ops.onednn.qlinear_prepack(codes, None)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    middle = 128 if torch.cpu._is_vnni_supported() else 64

    def product(x: Tensor) -> Tensor:
        step = _peak(x) / (middle - 1)
        x = (x / step).add_(middle + 0.5).to(torch.uint8)       # adding a half, then truncating, rounds
        y = torch.ops.onednn.qlinear_pointwise(
            x, 1.0, middle, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return y.mul_(step) if bias is None else torch.addcmul(bias, y, step)

    return product
