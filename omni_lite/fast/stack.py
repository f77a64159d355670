"""Transformer blocks of the Qwen2 kind, which is also LLaMA's, on a static cache."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_lite.fast.kernels import Linear, Plain
from omni_lite.fast.memory import untouched_zeros


@dataclass
class Block:
    """One transformer block: the weights (D,) of two norms, four products."""

    norm_1: Tensor
    qkv: Linear                              # D -> (H + 2K) * d
    out: Linear                              # H * d -> D
    norm_2: Tensor
    gate_up: Linear                          # D -> 2 * intermediate
    down: Linear


class Stack:
    """Blocks in sequence, with the keys and values of all steps so far.

    cache:    (blocks, batch rows, 2K, context, d): keys of the K heads, then their values
    compiled: steps run `rotate`, `swiglu` and `plain_rms_norm` as compiled code
    """

    def __init__(self, config: Any, rotations: Tensor, blocks: list[Block], rows: int, dtype: torch.dtype) -> None:
        """config: of transformers; rotations: (context, d / 2) complex64, see `rotary_table`."""
        self.blocks, self.rotations, self.dtype, self.eps = blocks, rotations, dtype, config.rms_norm_eps
        self.compiled = False
        self.H, self.K, self.d = head_sizes(config)
        shape = (len(blocks), rows, 2 * self.K, len(rotations), self.d)
        self.cache = untouched_zeros(shape, dtype, rotations.device)

    def fresh(self) -> "Stack":
        """The same blocks with an empty cache of their own."""
        other = copy(self)
        other.cache = untouched_zeros(tuple(self.cache.shape), self.dtype, self.cache.device)
        return other

    def prefill(self, x: Tensor, twin: bool, ends: bool) -> Tensor:
        """The question's P steps: (R, P, D) -> (R, P, D); fills R batch rows of the cache.

        twin: R is 1 and x has one more step, (1, P + 1, D): another form of the last one. It has the same position,
              does not see the step that it replaces, and ends batch row 1 of the cache
        ends: return only the last step and its twin, (R, 1 or 2, D). The last block computes only these, since the
              answer's steps need no more of the others than their keys and values
        """
        R, S, D = x.shape
        P, mask = S - twin, None
        positions = torch.arange(S, device=x.device).clamp_(max=P - 1)
        if twin:
            mask = torch.ones(S, S, dtype=torch.bool, device=x.device).tril()
            mask[P, P - 1] = False
        rotations = self._rotations(positions).repeat(R, 1, 1)
        x = x.reshape(R * S, D).clone()      # `added` may write into it
        for block, cache in zip(self.blocks, self.cache.unbind(0), strict=True):
            q, kv = (part.unflatten(0, (R, S)).transpose(1, 2) for part in self._project(block, x, rotations))
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
        """One step of R batch rows: (R, 1, D) -> (R, 1, D); writes its keys and values into the cache.

        position: (1,) int64 on the device, the step's position; nothing here waits for its value
        reach:    how many positions of the cache it attends to
        mask:     (1, 1, 1, reach) of the cache's dtype, -inf after `position`; None: reach = position + 1
        """
        R = len(x)
        rotations = self._rotations(position)
        if self.compiled:
            rotations = torch.view_as_real(rotations)
        rows, x = self.cache[:, :R], x[:, 0].clone()
        keys, values = rows[:, :, : self.K, :reach].unbind(0), rows[:, :, self.K :, :reach].unbind(0)
        for block, cache, k, v in zip(self.blocks, rows.unbind(0), keys, values, strict=True):
            q, kv = self._project(block, x, rotations)
            cache.index_copy_(2, position, kv[:, :, None])
            # The G queries of a group take the place of time: (R, K, G, d) with (R, K, reach, d).
            y = F.scaled_dot_product_attention(q.reshape(R, self.K, -1, self.d), k, v, attn_mask=mask)
            x = self._finish(block, x, y.reshape(R, -1))
        return x[:, None]

    def _rotations(self, positions: Tensor) -> Tensor:
        """(S,) -> (S, H + 2K, d / 2): the factors of queries and keys; those of values are one."""
        rotations = self.rotations[positions]
        heads = rotations.new_ones(len(positions), self.H + 2 * self.K, self.d // 2)
        heads[:, : self.H + self.K] = rotations[:, None]
        return heads

    def _project(self, block: Block, x: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """(n, D) -> rotated queries (n, H, d); rotated keys, then values (n, 2K, d).

        rotations: (n or 1, H + 2K, d / 2) complex64; for compiled code its real view
        """
        n = len(x)
        qkv = block.qkv(self._norm(x, block.norm_1))
        if not rotations.is_complex():
            rotated = compile_once(rotate)(qkv, rotations)
            return rotated[:, : self.H], rotated[:, self.H :]
        pairs = torch.view_as_complex(qkv.float().view(n, -1, self.d // 2, 2))
        rotated = torch.view_as_real(pairs * rotations).view(n, -1, self.d).to(self.dtype)
        return rotated[:, : self.H], rotated[:, self.H :]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """`rms_norm` of (n, D)."""
        if self.compiled and len(x) <= 2:    # a step; a question has any number of rows
            return compile_once(plain_rms_norm)(x, weight, self.eps)
        return rms_norm(x, weight, self.eps)

    def _finish(self, block: Block, x: Tensor, attended: Tensor) -> Tensor:
        """The part of a block after attention: (n, D), (n, H * d) -> (n, D)."""
        x = added(x, block.out, attended)
        y = block.gate_up(self._norm(x, block.norm_2))
        return added(x, block.down, compile_once(swiglu)(y) if self.compiled and len(x) <= 2 else swiglu(y))


def added(x: Tensor, linear: Linear, y: Tensor) -> Tensor:
    """x + linear(y); may write into x."""
    return linear.add_to(x, y) if isinstance(linear, Plain) else x + linear(y)


def swiglu(y: Tensor) -> Tensor:
    """(n, 2 M) -> (n, M): silu of the first half, times the second."""
    gate, up = y.chunk(2, dim=-1)
    return F.silu(gate) * up


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`F.rms_norm` over the last axis; compiled it takes half the time of that kernel on a step's short rows."""
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


def rotate(qkv: Tensor, rotations: Tensor) -> Tensor:
    """(n, (H + 2K) * d), (1, H + 2K, d / 2, 2) real and imaginary -> (n, H + 2K, d) in the dtype of qkv.

    The complex product of `Stack._project` in real numbers, since torch.compile fuses no complex ones.
    """
    even, odd = qkv.float().view(len(qkv), rotations.shape[1], -1, 2).unbind(-1)
    cos, sin = rotations.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(2).to(qkv.dtype)


@lru_cache
def compile_once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function as one kernel, compiled at its first call."""
    return torch.compile(function, dynamic=False)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`F.rms_norm` over the last axis, with half its operations in float32 on a CPU."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * weight).mul_(torch.addcmul(constant(eps), length, length, value=1 / x.shape[-1]).rsqrt_())


@lru_cache
def constant(value: float) -> Tensor:
    """The number as a float32 tensor () on the CPU, made once."""
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def head_sizes(config: Any) -> tuple[int, int, int]:
    """H query heads, K key/value heads, d width of a head, from a transformers config."""
    H = config.num_attention_heads
    return H, config.num_key_value_heads, getattr(config, "head_dim", None) or config.hidden_size // H


def rotary_table(rotary: nn.Module, context: int, device: torch.device) -> Tensor:
    """The angles of a transformers rotary module as complex numbers of length 1: (context, d / 2) complex64."""
    cos, sin = type(rotary)(rotary.config)(torch.zeros(1), torch.arange(context)[None])  # (1, context, d) each
    half = cos.shape[-1] // 2                                                   # every angle occurs twice
    return torch.complex(cos[0, :, :half], sin[0, :, :half]).to(device)


def pair_up(rows: Tensor, d: int) -> Tensor:
    """Put the two rows of each rotated pair next to each other: within a head j, j + d / 2 -> 2j, 2j + 1.

    transformers rotates value j of a head with value j + d / 2; here neighbours form one complex number.
    Queries and keys change their order alike, so their products stay the same.
    """
    return rows.unflatten(0, (-1, 2, d // 2)).transpose(1, 2).flatten(0, 2)
