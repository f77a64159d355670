"""What every codec shares: the order of a frame's seven codes, checks, and decoding that streams.

Codecs implement `encode`, `decode` and `stream`: `litesnac.LiteSNAC`, and the published one, `interop.snac.Snac`.
A streaming decoder is a list of stages. A stage keeps the columns that later ones still need, and passes on those that
are final.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from snac.vq import ResidualVectorQuantize
from torch import Tensor
from torch.nn import functional as F

from omni_lite.vocab import FRAME_ORDER, FRAME_SAMPLES, LEVEL_STRIDES, NUM_STREAMS


def frames_from_levels(levels: list[Tensor]) -> Tensor:
    """Interleave the three levels into frames of seven codes.

    levels:  (B, T), (B, 2T), (B, 4T) int64
    returns: (B, 7, T) int64, streams in the order of `vocab.FRAME_ORDER`
    source:  gpt-omni/mini-omni utils/snac_utils.py::reconstruct_tensors (its inverse)
    """
    per_frame = [LEVEL_STRIDES[0] // stride for stride in LEVEL_STRIDES]        # 1, 2, 4
    return torch.stack([levels[level][:, position :: per_frame[level]] for level, position in FRAME_ORDER], dim=1)


def levels_from_frames(codes: Tensor) -> list[Tensor]:
    """Split frames of seven codes into the three levels; the inverse of `frames_from_levels`.

    codes:   (B, 7, T) int64
    returns: (B, T), (B, 2T), (B, 4T) int64
    """
    B, _, T = codes.shape
    levels = []
    for level, stride in enumerate(LEVEL_STRIDES):
        per_frame = LEVEL_STRIDES[0] // stride
        streams = [FRAME_ORDER.index((level, position)) for position in range(per_frame)]
        levels.append(codes[:, streams].transpose(1, 2).reshape(B, T * per_frame))
    return levels


def check_codes(codes: Tensor, codebook: int) -> None:
    """Raise ValueError unless `codes` is (B, 7, T) of integers in 0 .. codebook - 1."""
    if codes.dim() != 3 or codes.shape[1] != NUM_STREAMS:
        raise ValueError(f"codes must have the shape (B, {NUM_STREAMS}, T), got {tuple(codes.shape)}")
    if codes.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"codes must be int64, got {codes.dtype}")
    wrong = (codes < 0) | (codes >= codebook)
    if wrong.any():
        b, q, t = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"codes must lie in 0..{codebook - 1}, got {int(codes[b, q, t])} in stream {q}: "
            "remove the special tokens (end, pad) before decoding"
        )


def check_wav(wav: Tensor) -> None:
    """Raise ValueError unless `wav` is (B, 1, N) of finite float32 with N > 0."""
    if wav.dim() != 3 or wav.shape[1] != 1 or wav.shape[2] == 0:
        raise ValueError(f"the wave must have the shape (B, 1, N) with N > 0, got {tuple(wav.shape)}")
    if wav.dtype != torch.float32:
        raise ValueError(f"the wave must be float32 in -1..1, got {wav.dtype}")
    if not torch.isfinite(wav).all():
        raise ValueError("the wave holds NaN or infinite samples")


def pad_to_frames(wav: Tensor) -> Tensor:
    """Append silence up to a whole number of frames: (B, 1, N) -> (B, 1, T * 2048)."""
    return F.pad(wav, (0, -wav.shape[-1] % FRAME_SAMPLES))


class Stage(Protocol):
    """One layer of a streaming decoder."""

    def push(self, x: Tensor | None, end: bool) -> Tensor | None:
        """Take the next columns (None: no new ones), return those now final; `end`: these are the last."""


class Pointwise:
    """A layer that sees one column at a time, so it keeps nothing."""

    def __init__(self, layer: Callable[[Tensor], Tensor]) -> None:
        self.layer = layer

    def push(self, x: Tensor | None, end: bool) -> Tensor | None:
        return None if x is None else self.layer(x)


class Windowed:
    """A layer that sees `left` columns before and `right` columns after each of its own.

    layer: the layer without padding: L + left + right columns in, L columns out
    axis:  of time
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], left: int, right: int, axis: int) -> None:
        self.layer, self.left, self.right, self.axis = layer, left, right, axis
        self.kept: Tensor | None = None      # left + right columns, fewer at the start

    def push(self, x: Tensor | None, end: bool) -> Tensor | None:
        if self.kept is None:
            if x is None:
                return None
            self.kept = self._zeros(x, self.left)
        parts = [self.kept] if x is None else [self.kept, x]
        if end:
            parts.append(self._zeros(self.kept, self.right))
        columns = torch.cat(parts, dim=self.axis)
        span = self.left + self.right
        ready = columns.shape[self.axis] - span
        if ready <= 0:
            self.kept = columns
            return None
        self.kept = columns.narrow(self.axis, ready, span).clone()  # a view would keep the whole chunk in memory
        return self.layer(columns)

    def _zeros(self, like: Tensor, columns: int) -> Tensor:
        shape = list(like.shape)
        shape[self.axis] = columns
        return like.new_zeros(shape)


class OverlapAdd:
    """A layer that turns columns into samples, where neighbouring columns overlap and add.

    layer: L columns -> (..., L * step + tail) samples, the last `tail` of them not final
    first: samples to drop at the start of the sound
    last:  samples to drop at its end, at most `tail`
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], tail: int, first: int, last: int) -> None:
        self.layer, self.tail, self.first, self.last = layer, tail, first, last
        self.kept: Tensor | None = None      # (..., tail)

    def push(self, x: Tensor | None, end: bool) -> Tensor | None:
        parts = []
        if x is not None:
            samples = self.layer(x)
            if self.kept is not None:
                samples[..., : self.tail] += self.kept
            final = samples.shape[-1] - self.tail
            self.kept = samples[..., final:].clone()
            parts.append(samples[..., :final])
        if end and self.kept is not None:
            parts.append(self.kept[..., : self.tail - self.last])
        if not parts:
            return None
        ready = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        dropped = min(self.first, ready.shape[-1])
        self.first -= dropped
        return ready[..., dropped:] if ready.shape[-1] > dropped else None


class CodecStream:
    """Codes in, sound out, while the model is still making codes.

    All chunks together equal `decode` of all codes. State and cost per frame do not grow with time.
    One stream decodes one utterance: `codec.stream()` opens the next.
    """

    def __init__(self, quantizer: ResidualVectorQuantize, stages: list[Stage]) -> None:
        self.quantizer, self.stages = quantizer, stages
        self.batch: int | None = None        # B, known from the first push on
        self.ended = False

    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames, return the samples that are final.

        codes:   (B, 7, n) int64, n >= 0, no special tokens
        returns: (B, 1, m) float32, m >= 0
        raises:  ValueError on wrong codes, another B than before, or after `flush`
        """
        if self.ended:
            raise ValueError("this stream has been flushed: open a new one with codec.stream()")
        check_codes(codes, self.quantizer.codebook_size)
        B, _, n = codes.shape
        if self.batch not in (None, B):
            raise ValueError(f"this stream decodes {self.batch} sounds at a time, got codes for {B}")
        self.batch = B
        return self._run(codes if n > 0 else None, end=False)

    def flush(self) -> Tensor:
        """End the utterance: (B, 1, m), the samples that waited for further frames."""
        x = self._run(None, end=not self.ended)  # a second flush gives nothing
        self.ended = True
        return x

    @torch.no_grad()
    def _run(self, codes: Tensor | None, end: bool) -> Tensor:
        x = None if codes is None else self.quantizer.from_codes(levels_from_frames(codes))
        for stage in self.stages:
            x = stage.push(x, end)
        if x is not None:
            return x
        return self.quantizer.quantizers[0].codebook.weight.new_zeros(self.batch or 1, 1, 0)
