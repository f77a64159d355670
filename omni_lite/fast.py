"""The same step, made fast: fused weights, a static cache, small numbers on a CPU, a CUDA graph on a GPU.

`generate.SlowDecoder` is the readable definition, with transformers' own blocks; here is what it costs less:

    slow                                          fast
    q, k, v and gate, up: 5 products a block      2, the weights laid side by side once
    rotary positions: 10 operations a block       one complex product, for queries, keys and values together
    a cache that grows by copying                 allocated once, written in place, kept between questions
    keys and values repeated for every head       the queries of a group read the same ones
    the prompt's last step as two further rows    one more position of the same pass
    a prompt's steps through all blocks           through the last block only those that a head reads
    fp32 weights: 4 bytes each                    fp32, bf16 or int8: a step is the reading of all weights
    weights in pages of 4 kB                      of 2 MB, where the system has them: fewer addresses to look up
    on a GPU 16 kernels a block                   11: the residual is added by the product itself, and
                                                  torch.compile joins what lies between products

Nothing is faster by default: `generate` and `Assistant` take the slow path unless a decoder or a precision
is given, since which is faster depends on the machine; `benchmarks/decode.py` measures it.

Letters, besides those of `vocab.py`:  R rows decoded at once (1 or 2)   P steps of the question
H query heads   K key/value heads   G = H / K queries that share a key   d width of a head

Sources: pytorch-labs/gpt-fast model.py, generate.py (static cache, CUDA graph); arXiv 2104.09864 (rotary
positions as complex products); arXiv 2208.07339 (int8 with one scale a row of activations).
"""

import ctypes
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from mmap import PAGESIZE, mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_lite import release
from omni_lite.config import OmniConfig
from omni_lite.generate import Logits
from omni_lite.model import OmniModel, TTSAdapter
from omni_lite.precision import bf16_pays
from omni_lite.streams import Rows
from omni_lite.vocab import NUM_ROWS, NUM_STREAMS

Linear = Callable[[Tensor], Tensor]          # (n, in) -> (n, out)
Weights = Callable[[str], Tensor]            # a name of OmniModel.state_dict() -> that tensor

# How a product can be computed at each precision on a CPU, the default first; a GPU has "plain" alone.
KERNELS = {"fp32": ("plain", "onednn"), "bf16": ("onednn", "plain"), "int8": ("dynamic", "onednn")}
PRECISIONS = tuple(KERNELS)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}  # of activations and cache
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
TRUNKS = ("qwen2", "llama", "mistral")       # model types whose blocks are the ones computed here
ROTARY = ("default", "linear", "llama3", "yarn")  # kinds whose angles depend on the position alone
UNAIDED_ROWS = 24                            # up to which bfloat16 pays on a CPU without instructions for it
COPIED_ELEMENTS = 4_000_000                  # of a float32 matrix that is copied to be read column by column
MATRIX_UNIT_ELEMENTS = 4_000_000             # of a matrix for which a CPU's matrix unit pays
TABLES = ("text_embed.weight", "audio_embed.weight")
ROWS_AT_ONCE = 4096                          # of a matrix that becomes int8
SHORTEST_REACH = 256                         # positions that the shortest CUDA graph attends to


# --- memory ------------------------------------------------------------------------------------------------

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
USUAL_BYTES, LEAN_BYTES = 32 * 2**20, 64 * 2**10


@contextmanager
def lean_heap() -> Iterator[None]:
    """Let freed memory go back to the system at once, where the C library is glibc; nothing elsewhere.

    Packing makes and frees a copy of every matrix. glibc keeps pieces of up to 32 MB for later, in between what stays,
    and so 500 MB of int8 weights took 900. Here it asks the system for each piece apart; that is slow, so it is only
    for loading, and afterwards the limits are where glibc's own adaptation would end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    for which in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        mallopt(which, LEAN_BYTES)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, USUAL_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2 * USUAL_BYTES)


MADV_COLLAPSE = 25                           # of Linux's madvise(2)
HUGE_PAGE = 2 * 2**20                        # bytes, where usual pages have 4096
HUGE_FILLED = 15 / 16                        # of such a piece, or it is left alone: the rest of it takes memory too


@contextmanager
def huge_pages() -> Iterator[None]:
    """Gather the memory that is asked for meanwhile, and kept, into huge pages, where Linux can (from 6.1 on).

    A step reads every weight once. In usual pages 500 MB have 120,000 places to look up, more than a processor
    remembers; in huge ones 250. Many systems give them only on request. Source: madvise(2)
    """
    before = huge_pieces()
    yield
    for piece in huge_pieces() - before:
        if filled(piece) >= HUGE_FILLED:
            gather(piece)


def filled(piece: int) -> float:
    """How much of such a piece takes memory: 0 to 1; 0 where the system does not say. Source: mincore(2)"""
    pages = (ctypes.c_ubyte * (HUGE_PAGE // PAGESIZE))()
    mincore = getattr(ctypes.CDLL(None), "mincore", None)
    if mincore is None or mincore(ctypes.c_void_p(piece), ctypes.c_size_t(HUGE_PAGE), pages):
        return 0.0
    return sum(page & 1 for page in pages) / len(pages)


def gather(piece: int) -> None:
    """Make one huge page of it; where the system refuses it stays as it is."""
    ctypes.CDLL(None).madvise(ctypes.c_void_p(piece), ctypes.c_size_t(HUGE_PAGE), MADV_COLLAPSE)


def huge_pieces() -> set[int]:
    """Where in this process's own memory, which no file lies under, a huge page could be; empty where not Linux."""
    maps, found = Path("/proc/self/maps"), set()
    for line in maps.read_text().splitlines() if maps.exists() else ():
        ends, rights, _, _, _, *name = line.split()
        if not name and rights.startswith("rw"):
            first, last = (int(end, 16) for end in ends.split("-"))
            found |= set(range(first + -first % HUGE_PAGE, last - HUGE_PAGE + 1, HUGE_PAGE))
    return found


def untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`torch.zeros`, which on a CPU takes memory only as it is written: a cache of 2048 steps is hardly ever full.

    The system gives an anonymous map zeros page by page, as they are asked for; torch writes them all at once, and
    numpy asks for huge pages.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


def draw(shape: torch.Size | tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    """Weights of a matrix, as training starts with; ones for a norm, and for a bias."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype, device=device)
    return torch.empty(shape, dtype=dtype, device=device).normal_(std=0.02)


# --- one product ------------------------------------------------------------------------------------------


def pack_linear(weight: Tensor, bias: Tensor | None, precision: str, kernel: str | None = None) -> Linear:
    """A matrix, laid out once for many products with few rows: for x (n, in) `F.linear(x, weight, bias)`, about.

    weight: (out, in), bias: (out,) or None, of any float dtype; copied where the kernel needs it otherwise
    kernel: one of KERNELS[precision]; None: its default, which on a GPU is "plain"

    What each is, and what is known of it; `benchmarks/decode.py` times them inside the decoder. Single
    products of 2 x 896 by 896 x 9728 on a busy AVX-512 core took, of its own time, 4.8 and 1.3 ms in fp32
    (plain, onednn), 0.35 and 1.2 ms in bf16 (onednn, plain), 0.16 and 0.22 ms in int8 (dynamic, onednn):
        fp32 plain    F.linear on a large weight as it is: no copy where it is float32 already. A small one is laid out
                      the other way: on two AVX2 cores 1 x 256 by 256 x 7203 took 0.4 ms then, 1.1 before
        fp32 onednn   mkldnn::_linear_pointwise on a weight reordered into blocks; could also fuse the
                      residual's addition (its "add" overload)
        bf16 onednn   the same in bfloat16: the kernels that torch.compile's freezing picks, without torch.compile
        bf16 plain    F.linear in bfloat16, which reorders the weight at every call on some CPUs
        int8 dynamic  quantized::linear_dynamic, FBGEMM or oneDNN by `torch.backends.quantized.engine`:
                      quantises x itself, in one call. Read weights at 25-28 GB/s where memory gives 32 (two
                      AVX-512 cores). Its packed weights are made from torch's quantized tensors, which are
                      deprecated (pytorch/pytorch#184982)
        int8 onednn   onednn::qlinear_pointwise: x quantised here, in four small operations; what
                      torch.compile lowers int8 models to, so the one with a future in torch. It alone uses a
                      CPU's matrix unit (Intel's AMX), which a question's 151 rows gain by; a step's two rows do not,
                      and in small matrices they lose: see `kernel_of_blocks`
    Not written, for a later measurement: ONNX Runtime's MatMulNBits (28 GB/s in blocks of 32, a session per
    product), OpenVINO (whole graph), aten::_weight_int8pack_mm (10-15 GB/s when tried by hand).
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
    """`F.linear` on a GPU, which can also add what it computes to what is there: one kernel instead of two."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def add_to(self, x: Tensor, y: Tensor) -> Tensor:
        """x + self(y), in the place of x."""
        x.addmm_(y, self.weight.t())
        return x if self.bias is None else x.add_(self.bias)


def _bf16_unaided(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` in bfloat16 on a CPU without instructions for it.

    For a step's two rows the time goes into reading the weights, and half the bytes pay here too. A question's rows
    are multiplied in float32: three times as fast, with the copy of the matrix that it takes.
    """
    if len(x) <= UNAIDED_ROWS:
        return F.linear(x, weight, bias)
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def kernel_of_blocks(precision: str, size: int, device: torch.device) -> str | None:
    """The kernel for a block's matrix, which multiplies a question's 150 rows and a step's two; None: the default.

    size: elements of the matrix

    Heads never have more than two rows, and take the default.
    """
    large = precision == "int8" and device.type == "cpu" and size >= MATRIX_UNIT_ELEMENTS
    return "onednn" if large and torch.cpu._is_amx_tile_supported() else None


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as int8 of -127..127 and one scale: (out, in) -> codes (out, in) int8, scales (out,) float32.

    codes * scales[:, None] is the weight, off by half a scale at most. Some rows at a time: a head of 152,000 ids
    would else lie in memory as float32 three times over.
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

    Rows are scaled apart. One scale for all would lose a prompt's quiet positions beside its loudest, whose
    values may be a thousand times larger inside a trained model (arXiv 2402.17762). torch's norm of infinite order
    says the same in one operation, which on a CPU takes several times as long: it reads number by number.
    """
    return x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12)


def _pack_int8_dynamic(weight: Tensor, bias: Tensor | None) -> Linear:
    """The kernel has one scale for all of x, so several rows are brought to one size before it."""
    codes, scales = quantize_rows(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")      # the deprecation, told above
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(codes, scales.double(), zeros, 0)
        del codes                            # copied; of the head it is 136 MB
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    # Without these instructions 8-bit products are summed in pairs of 16 bits, and need a bit to spare.
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
    """Activations as 1..255 around 128: for signed ones oneDNN has only its reference code, 1000 times slower.

    As 1..127 around 64 without the instructions for 8-bit products: see `_pack_int8_dynamic`.
    """
    codes, scales = quantize_rows(weight)
    packed = torch.ops.onednn.qlinear_prepack(codes, None)
    zeros = torch.zeros(len(scales), dtype=torch.int64)

    middle = 128 if torch.cpu._is_vnni_supported() else 64

    def product(x: Tensor) -> Tensor:
        step = _peak(x) / (middle - 1)
        x = (x / step).add_(middle + 0.5).to(torch.uint8)       # adding a half, then cutting, is rounding
        y = torch.ops.onednn.qlinear_pointwise(
            x, 1.0, middle, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return y.mul_(step) if bias is None else torch.addcmul(bias, y, step)

    return product


# --- blocks with a static cache ---------------------------------------------------------------------------


@dataclass
class Block:
    """One transformer block: the weights of its two norms (D,), its four products."""

    norm_1: Tensor
    qkv: Linear                              # D -> (H + 2K) * d
    out: Linear                              # H * d -> D
    norm_2: Tensor
    gate_up: Linear                          # D -> 2 * intermediate
    down: Linear


class Stack:
    """Blocks of the Qwen2 and LLaMA kind, one after the other, and the keys and values of all steps so far.

    cache: (blocks, rows, 2K, context, d): keys of the K heads, then their values
    joined: steps run `turn_and_round`, `gated` and `normed` as compiled code
    """

    def __init__(self, config: Any, turns: Tensor, blocks: list[Block], rows: int, dtype: torch.dtype) -> None:
        """config: of transformers; turns: (context, d / 2) complex64, see `rotary_turns`"""
        self.blocks, self.turns, self.dtype, self.eps = blocks, turns, dtype, config.rms_norm_eps
        self.joined = False
        self.H, self.K, self.d = head_sizes(config)
        shape = (len(blocks), rows, 2 * self.K, len(turns), self.d)
        self.cache = untouched_zeros(shape, dtype, turns.device)

    def prefill(self, x: Tensor, twin: bool, ends: bool) -> Tensor:
        """The question's P steps, from nothing: (R, P, D) -> (R, P, D); fills R rows of the cache.

        twin: R is 1, and x has one more step, (1, P + 1, D), another form of the last one: it stands at the same
              position, does not see the one it replaces, and ends row 1 of the cache
        ends: only the last step and its twin are returned, (R, 1 or 2, D), and the last block computes no others:
              of those before, the cache has their keys and values, which is all that the answer's steps look at
        """
        R, S, D = x.shape
        P, mask = S - twin, None
        positions = torch.arange(S, device=x.device).clamp_(max=P - 1)
        if twin:
            mask = torch.ones(S, S, dtype=torch.bool, device=x.device).tril()
            mask[P, P - 1] = False
        turns = self._turns(positions).repeat(R, 1, 1)
        x = x.reshape(R * S, D).clone()      # what is added to it below may be added in its place
        for block, cache in zip(self.blocks, self.cache.unbind(0), strict=True):
            q, kv = (part.unflatten(0, (R, S)).transpose(1, 2) for part in self._project(block, x, turns))
            k, v = kv.repeat_interleave(self.H // self.K, dim=1).chunk(2, dim=1)
            if ends and block is self.blocks[-1]:
                S = 1 + twin
                q, x = q[:, :, -S:], x.view(R, -1, D)[:, -S:].reshape(R * S, D)
                mask = None if mask is None else mask[-S:]
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and S > 1)
            cache[:R, :, :P] = kv[:, :, :P]
            if twin:
                cache[1, :, : P - 1] = kv[0, :, : P - 1]
                cache[1, :, P - 1] = kv[0, :, P]
            x = self._finish(block, x, y.transpose(1, 2).reshape(R * S, -1))
        return x.view(R, S, D)

    def step(self, x: Tensor, position: Tensor, reach: int, mask: Tensor | None) -> Tensor:
        """One step of R rows: (R, 1, D) -> (R, 1, D); writes its keys and values into the cache.

        position: (1,) int64 on the device, where the step stands; nothing here waits for its value
        reach:    how many positions of the cache are looked at
        mask:     (1, 1, 1, reach) of the cache's dtype, -inf after `position`; None: reach = position + 1
        """
        R = len(x)
        turns = self._turns(position)
        if self.joined:
            turns = torch.view_as_real(turns)
        rows, x = self.cache[:, :R], x[:, 0].clone()
        keys, values = rows[:, :, : self.K, :reach].unbind(0), rows[:, :, self.K :, :reach].unbind(0)
        for block, cache, k, v in zip(self.blocks, rows.unbind(0), keys, values, strict=True):
            q, kv = self._project(block, x, turns)
            cache.index_copy_(2, position, kv[:, :, None])
            # The G queries of a group take the place of time: (R, K, G, d) against (R, K, reach, d).
            y = F.scaled_dot_product_attention(q.reshape(R, self.K, -1, self.d), k, v, attn_mask=mask)
            x = self._finish(block, x, y.reshape(R, -1))
        return x[:, None]

    def _turns(self, positions: Tensor) -> Tensor:
        """(S,) -> (S, H + 2K, d / 2): what queries and keys are multiplied by; values by one."""
        turns = self.turns[positions]
        heads = turns.new_ones(len(positions), self.H + 2 * self.K, self.d // 2)
        heads[:, : self.H + self.K] = turns[:, None]
        return heads

    def _project(self, block: Block, x: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        """(n, D) -> turned queries (n, H, d), turned keys and plain values (n, 2K, d); turns: of all or each."""
        n = len(x)
        qkv = block.qkv(self._norm(x, block.norm_1))
        if not turns.is_complex():
            turned = joined(turn_and_round)(qkv, turns)
            return turned[:, : self.H], turned[:, self.H :]
        pairs = torch.view_as_complex(qkv.float().view(n, -1, self.d // 2, 2))
        turned = torch.view_as_real(pairs * turns).view(n, -1, self.d).to(self.dtype)
        return turned[:, : self.H], turned[:, self.H :]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """`rms_norm` of (n, D)."""
        if self.joined and len(x) <= 2:      # a step's rows; a question's are of any number
            return joined(normed)(x, weight, self.eps)
        return rms_norm(x, weight, self.eps)

    def _finish(self, block: Block, x: Tensor, attended: Tensor) -> Tensor:
        """What follows attention in a block: (n, D), (n, H * d) -> (n, D)."""
        x = added(x, block.out, attended)
        y = block.gate_up(self._norm(x, block.norm_2))
        return added(x, block.down, joined(gated)(y) if self.joined and len(x) <= 2 else gated(y))


def added(x: Tensor, linear: Linear, y: Tensor) -> Tensor:
    """x + linear(y); x is not needed afterwards."""
    return linear.add_to(x, y) if isinstance(linear, Plain) else x + linear(y)


def gated(y: Tensor) -> Tensor:
    """The two halves of (n, 2 M): silu of the one, times the other."""
    gate, up = y.chunk(2, dim=-1)
    return F.silu(gate) * up


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`F.rms_norm` over the last axis: compiled, the short rows of a step take half of what its own kernel takes."""
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


def turn_and_round(qkv: Tensor, turns: Tensor) -> Tensor:
    """(n, (H + 2K) * d), (1, H + 2K, d / 2, 2) real and imaginary -> (n, H + 2K, d) in the dtype of qkv.

    The complex product of `Stack._project`, written out: torch.compile joins no complex numbers.
    """
    even, odd = qkv.float().view(len(qkv), turns.shape[1], -1, 2).unbind(-1)
    cos, sin = turns.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(2).to(qkv.dtype)


@lru_cache
def joined(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function as one kernel, compiled when it is first called."""
    return torch.compile(function, dynamic=False)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`F.rms_norm` over the last axis, which in float32 on a CPU consists of twice as many operations."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * weight).mul_(torch.addcmul(constant(eps), length, length, value=1 / x.shape[-1]).rsqrt_())


@lru_cache
def constant(value: float) -> Tensor:
    """The number as a tensor () of the CPU's float32 operations, made once."""
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def head_sizes(config: Any) -> tuple[int, int, int]:
    """H, K, d of a transformers config."""
    H = config.num_attention_heads
    return H, config.num_key_value_heads, getattr(config, "head_dim", None) or config.hidden_size // H


def rotary_turns(rotary: nn.Module, context: int, device: torch.device) -> Tensor:
    """The angles of a transformers rotary module as unit numbers: (context, d / 2) complex64."""
    cos, sin = type(rotary)(rotary.config)(torch.zeros(1), torch.arange(context)[None])  # (1, context, d) each
    half = cos.shape[-1] // 2                                                   # they hold every angle twice
    return torch.complex(cos[0, :, :half], sin[0, :, :half]).to(device)


def pair_up(rows: Tensor, d: int) -> Tensor:
    """Bring the two rows of each rotated pair together: within a head j, j + d / 2 -> 2j, 2j + 1.

    transformers rotates value j of a head with value j + d / 2; neighbours are one complex number.
    Queries and keys in the same new order have the same products.
    """
    return rows.unflatten(0, (-1, 2, d // 2)).transpose(1, 2).flatten(0, 2)


# --- the decoder ------------------------------------------------------------------------------------------


class FastDecoder:
    """A `generate.Decoder` for models whose trunk has blocks of the Qwen2 and LLaMA kind.

    It holds one conversation at a time: `prefill` forgets the question before it. Logits are those of
    `generate.SlowDecoder` up to rounding, and they are overwritten by the next step where graphs are used.

    model:     in eval mode, on the device to compute on; its embeddings and ASR adapter stay in use and in
               their dtype, its other weights are copied (fp32 plain: where fused or small) and may be dropped
    precision: "fp32", "bf16", or "int8": weights with one scale a row, activations quantised as they come
    kernel:    see `pack_linear`
    context:   positions to allocate; None: all of the trunk's, at most 2048
    static:    a step of constant shapes, with its position as a tensor; None: on a GPU alone
    graph:     capture such steps as CUDA graphs and replay them; None: on a GPU alone
    join:      let torch.compile join small operations of a step, where a compiler is found; None: where graphs are
    weights:   where to read blocks, norms and a head of its own from, name by name; None: from the model.
               For a model on the meta device, which then never lies in memory whole
    """

    def __init__(
        self,
        model: OmniModel,
        precision: str = "fp32",
        *,
        kernel: str | None = None,
        context: int | None = None,
        static: bool | None = None,
        graph: bool | None = None,
        join: bool | None = None,
        weights: Weights | None = None,
    ) -> None:
        check_trunk(model)
        if precision not in PRECISIONS:
            raise ValueError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
        self.model, self.precision, self.kernel = model, precision, kernel
        self.device, self.dtype = model.bands.device, DTYPES[precision]
        on_gpu = self.device.type == "cuda"
        self.graph = on_gpu if graph is None else graph
        self.static = self.graph or (on_gpu if static is None else static)
        config = model.trunk.config
        positions = config.max_position_embeddings or 2048
        self.context = min(positions, 2048 if context is None else context)
        self.length, self.rows = 0, 1        # steps in the cache; rows that are being decoded
        self.unread = False                  # whether the TTS blocks run a second row, which sees no text
        self.step_bytes = 0                  # of weights that a step of two rows reads
        self.read = weights or _reader(model)
        with lean_heap(), huge_pages() if self.device.type == "cpu" else nullcontext():
            self._pack(model, config)
        self.inputs = torch.zeros(2 * NUM_ROWS + 1, dtype=torch.int64, device=self.device)  # ids, position
        for stack in (self.trunk, self.tts):
            if stack is not None:
                stack.joined = self.graph if join is None else join
        self.graphs: dict[tuple[int, int, bool, bool, bool], tuple[Any, Logits]] = {}
        self.pool: Any = None

    @classmethod
    @torch.no_grad()
    def from_release(cls, folder: Path, precision: str = "int8", device: str = "cpu") -> "FastDecoder":
        """The released checkpoint in a fraction of its memory: each matrix is packed as it is read, and forgotten.

        Its `model` holds embeddings and ASR adapter alone, and on a CPU the embeddings stay in the file, of which the
        system reads the few rows that a question needs. Errors as in `OmniModel.from_release`.
        """
        config = release.read_config(folder)
        if (folder / release.TOKENIZER_FILE).is_file():
            release.read_tokenizer(folder, config.vocab)
        storage = torch.float32 if precision == "fp32" else torch.bfloat16
        model = OmniModel.without_blocks(config, storage, device)
        read = release.weight_reader(folder, config, model.state_dict())
        tables = {name: read(name) for name in TABLES}
        mapped = device == "cpu" and all(one.dtype == torch.float32 or precision != "fp32" for one in tables.values())
        if mapped:
            model.asr_adapter.to(tables["text_embed.weight"].dtype)
        for name, parameter in model.named_parameters():
            if name in tables and mapped:
                parameter.data = tables[name]
            elif not parameter.is_meta:
                parameter.copy_(read(name))
        return cls(model, precision, weights=read)

    @classmethod
    @torch.no_grad()
    def drawn(
        cls, config: OmniConfig, precision: str = "int8", device: str = "cpu", kernel: str | None = None
    ) -> "FastDecoder":
        """Drawn weights in as little memory as `from_release` needs, to try a size out and to measure it.

        The same for the same seed of torch. Errors as in `FastDecoder`; kernel: one of KERNELS[precision], or None.
        The embeddings lie in a file here too; it has no name any more once the decoder is there.
        """
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        model = OmniModel.without_blocks(config, dtype, device)
        shapes = {name: one.shape for name, one in model.named_parameters()}
        on_disk = TABLES if device == "cpu" else ()
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:

            def read(name: str) -> Tensor:
                if name not in on_disk:
                    return draw(shapes[name], dtype, device)
                size, path = math.prod(shapes[name]), Path(folder) / name
                if not path.exists():
                    draw(shapes[name], dtype, device).view(torch.uint8).numpy().tofile(path)
                return torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(shapes[name])

            for name, parameter in model.named_parameters():
                if not parameter.is_meta:
                    parameter.data = read(name)
            return cls(model, precision, kernel=kernel, weights=read)

    # --- weights ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _pack(self, model: OmniModel, config: Any) -> None:
        """Lay all weights out; afterwards `read` is not needed any more.

        The heads first: they are the largest, and what packing them takes for a moment is then gone before the rest
        is there.
        """
        before = model.config.tts_before_norm
        self.norm = self._plain("trunk.text_norm.weight" if before else "trunk.norm.weight")
        self.spoken_norm = None if before else self.norm     # what the speaking side takes the trunk through
        own = model.text_head
        self.text_head = self._linear(self.read("text_head.weight" if "weight" in own else "text_embed.weight"),
                                      self.read("text_head.bias") if "bias" in own else None)
        voice = model.tts_adapter if isinstance(model.tts_adapter, TTSAdapter) else None
        head = "audio_embed.weight" if voice is None else "tts_adapter.head.weight"
        self.audio_head = self._linear(self.read(head), None)
        rotary = rotary_turns(model.trunk.rotary_emb, self.context, self.device)
        blocks = [self._block(f"trunk.layers.{i}", config) for i in range(config.num_hidden_layers)]
        self.trunk = Stack(config, rotary, blocks, 2, self.dtype)
        self.tts: Stack | None = None
        self.tts_text: Tensor | None = None  # (V_text, D), where the TTS blocks read the text row
        if voice is not None:
            tts = voice.rotary.config
            rotary = rotary_turns(voice.rotary, self.context, self.device)
            blocks = [self._block(f"tts_adapter.blocks.{i}", tts) for i in range(tts.num_hidden_layers)]
            self.tts_norm = self._plain("tts_adapter.norm.weight")
            if voice.text is not None:
                self.tts_text = self._plain("tts_adapter.text.weight")
            self.tts = Stack(tts, rotary, blocks, 1 if voice.text is None else 2, self.dtype)
        del self.read

    def _plain(self, name: str) -> Tensor:
        # A copy: a view of a mapped file would keep all of the map's pages that were ever looked at.
        return self.read(name).detach().to(self.device, self.dtype, copy=True)

    def _linear(self, weight: Tensor, bias: Tensor | None, in_block: bool = False) -> Linear:
        self.step_bytes += weight.numel() * WEIGHT_BYTES[self.precision]
        weight, bias = weight.to(self.device), None if bias is None else bias.to(self.device)
        kernel = kernel_of_blocks(self.precision, weight.numel(), self.device) if in_block else None
        return pack_linear(weight, bias, self.precision, self.kernel or kernel)

    def _block(self, name: str, config: Any) -> Block:
        """One block's weights, fused; biases where the trunk has them (Qwen2: q, k, v; LLaMA: none)."""
        d = head_sizes(config)[2]
        parts = dict(self.model.named_parameters())

        def joined(*layers: str) -> tuple[Tensor, Tensor | None]:
            """The layers' weights one below the other, and their biases; rows of q and k in pairs."""
            found: list[Tensor | None] = []
            for kind in ("weight", "bias"):
                names = [f"{name}.{layer}.{kind}" for layer in layers]
                if names[0] not in parts:
                    found.append(None)
                    continue
                pieces = [self.read(one) for one in names]
                pieces = [pair_up(piece, d) if one.endswith((f"q_proj.{kind}", f"k_proj.{kind}")) else piece
                          for piece, one in zip(pieces, names, strict=True)]
                found.append(torch.cat(pieces) if len(pieces) > 1 else pieces[0])
            weight, bias = found
            assert weight is not None, f"{name} has no {layers[0]}"
            return weight, bias

        return Block(
            norm_1=self._plain(f"{name}.input_layernorm.weight"),
            qkv=self._linear(*joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), in_block=True),
            out=self._linear(*joined("self_attn.o_proj"), in_block=True),
            norm_2=self._plain(f"{name}.post_attention_layernorm.weight"),
            gate_up=self._linear(*joined("mlp.gate_proj", "mlp.up_proj"), in_block=True),
            down=self._linear(*joined("mlp.down_proj"), in_block=True),
        )

    # --- what `generate` calls ----------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(
        self, question: Rows, features: Tensor | None = None, *, speaks: bool, batch_parallel: bool = False,
        unread: bool = False,
    ) -> Logits:
        """Run a whole question in one pass; see `generate.prefill`."""
        P = len(question)
        if P >= self.context:
            raise ValueError(f"The question fills {P} of {self.context} steps: no room to answer.")
        x = self.model.embed(question.text[None], question.audio[None], features)
        if batch_parallel:                   # the written row's last step, beside the spoken row's
            silent = torch.full_like(question.audio[:, -1:], self.model.config.vocab.pad_a)
            x = torch.cat([x, self.model.embed(question.text[None, -1:], silent[None])], dim=1)
        # TTS blocks look at all steps of the question; else its end alone is needed.
        x = self.trunk.prefill(x.to(self.dtype), twin=batch_parallel, ends=self.tts is None or not speaks)
        self.length, self.rows, self.unread = P, 1 + batch_parallel, unread
        audio: tuple[Tensor | None, ...] = (None,)
        if speaks:
            spoken = self._spoken(x[:, : x.shape[1] - batch_parallel], question.text[None], unread)
            audio = self._audio(spoken if self.tts is None else self.tts.prefill(spoken, twin=False, ends=True))
        return Logits(self._text(x[:, -1:]), *audio)

    @torch.inference_mode()
    def step(self, text_id: int, audio_ids: Sequence[int] | None, *, writes: bool = True) -> Logits:
        """Feed one step of the answer; see `generate.decode_step`. Once a step does not write, row 1 is gone."""
        if self.length >= self.context:
            raise ValueError(f"The answer has filled all {self.context} steps of the decoder: give it a limit.")
        if not writes:
            self.rows = 1
        pad, speaks = self.model.config.vocab.pad_a, audio_ids is not None
        spoken = [pad] * NUM_STREAMS if audio_ids is None else list(audio_ids)
        sent = [*spoken, text_id, *[pad] * NUM_STREAMS, text_id, self.length]
        self.inputs.copy_(torch.tensor(sent), non_blocking=True)                # one small copy, and no wait
        reach = self._reach(self.length) if self.static else self.length + 1
        self.length += 1
        key = (self.rows, reach, speaks, writes, self.unread)
        if not self.graph:
            return self._forward(*key)
        if key not in self.graphs:
            self.graphs[key] = self._capture(*key)
        graph, logits = self.graphs[key]
        graph.replay()
        return logits

    def _reach(self, length: int) -> int:
        """Positions that a static step looks at: a power of two beyond `length`, so that few graphs are needed."""
        return min(self.context, max(SHORTEST_REACH, 1 << length.bit_length()))

    # --- one step, on the device alone --------------------------------------------------------------------

    def _forward(self, rows: int, reach: int, speaks: bool, writes: bool, unread: bool) -> Logits:
        """What `inputs` asks for: no value is read on the host, and shapes follow from the arguments."""
        ids, position = self.inputs[:-1].view(2, NUM_ROWS)[:rows], self.inputs[-1:]
        x = self.model.embed(ids[:, -1:], ids[:, :-1, None]).to(self.dtype)     # (R, 1, D)
        mask = None
        if self.static:
            later = torch.arange(reach, device=self.device) > position
            mask = torch.zeros(reach, dtype=self.dtype, device=self.device).masked_fill_(later, -torch.inf)
            mask = mask[None, None, None]
        x = self.trunk.step(x, position, reach, mask)
        audio: tuple[Tensor | None, ...] = (None,)
        if speaks:                                                              # row 0 speaks, the last one writes
            spoken = self._spoken(x[:1], ids[:1, -1:], unread)
            audio = self._audio(spoken if self.tts is None else self.tts.step(spoken, position, reach, mask))
        return Logits(self._text(x[-1:]) if writes else None, *audio)

    def _spoken(self, x: Tensor, text_ids: Tensor, unread: bool) -> Tensor:
        """What the speaking side sees of the trunk, and of the text row: (1, S, D), (1, S) -> (1, S, D).

        unread: and in a second row, (2, S, D), what it would see if that row were silent
        """
        if self.spoken_norm is not None:
            x = rms_norm(x, self.spoken_norm, self.trunk.eps)
        if self.tts_text is None:
            return x
        if unread:
            text_ids = torch.cat([text_ids, torch.full_like(text_ids, self.model.config.vocab.pad_t)])
        return x + F.embedding(text_ids, self.tts_text)

    def _text(self, x: Tensor) -> Tensor:
        """(1, 1, D) of the trunk -> (V_text,)"""
        return self.text_head(rms_norm(x[0], self.norm, self.trunk.eps))[0]

    def _audio(self, x: Tensor) -> tuple[Tensor, ...]:
        """(1 or 2, 1, D) of the trunk or the TTS blocks -> one or two of (7, V_audio)"""
        x = x[:, 0]
        if self.tts is not None:
            x = rms_norm(x, self.tts_norm, self.tts.eps)
        return self.audio_head(x).unflatten(-1, (NUM_STREAMS, -1)).unbind(0)

    def _try(self, *key: Any) -> None:
        """A step for warming up; where nothing can be compiled, steps go on without."""
        try:
            self._forward(*key)
        except (RuntimeError, ImportError):
            stacks = [stack for stack in (self.trunk, self.tts) if stack is not None and stack.joined]
            if not stacks:
                raise
            for stack in stacks:
                stack.joined = False
            self._forward(*key)

    def _capture(self, *key: Any) -> tuple[Any, Logits]:
        """Record a step as a CUDA graph. Warming up writes the same keys and values to the same place."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._try(*key)
        torch.cuda.current_stream().wait_stream(side)
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            logits = self._forward(*key)
        return graph, logits


def _reader(model: OmniModel) -> Weights:
    tensors = dict(model.named_parameters())
    return lambda name: tensors[name]


def check_trunk(model: OmniModel) -> None:
    """Refuse, in one sentence, a trunk whose blocks are not the ones computed here."""
    config = model.trunk.config
    rope = getattr(config, "rope_parameters", None) or {}
    reason = None
    if config.model_type not in TRUNKS:
        reason = f"the blocks of {config.model_type} are not those of {', '.join(TRUNKS)}"
    elif config.hidden_act != "silu":
        reason = f"its activation is {config.hidden_act}, not silu"
    elif rope.get("rope_type", "default") not in ROTARY:
        reason = f"its rotary positions are of the kind {rope['rope_type']}"
    elif _slides(config):
        reason = "its attention looks through a sliding window"
    if reason is not None:
        raise ValueError(f"The fast decoder cannot run this model, since {reason}: leave the precision out.")


def _slides(config: Any) -> bool:
    """Whether a window is narrower than the positions there are; `layer_types`, where given, decides."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return "sliding_attention" in kinds
    window = getattr(config, "sliding_window", None)
    return window is not None and window < (config.max_position_embeddings or 2048)
