"""Waveform <-> codes: seven tokens for every 2048 samples (85.3 ms) of 24 kHz sound.

Two codecs behind one small interface (`sample_rate`, `codebook_size`, `encode`, `decode`, `stream`):
    LiteSNAC  this project's own, 5.3 M parameters, trainable and fast on a CPU
    Snac      the published `snac.SNAC` (arXiv 2410.14411), which Mini-Omni speaks with

Both quantise at three rates. Of the four fine columns of a frame (512 samples each), level 0
gives one token to all four, level 1 one to each half, level 2 one to each.

Letters, besides those of `vocab.py`:  L columns in time (several rates)   C codebook dimensions

LiteSNAC takes from: Vocos (arXiv 2306.00814) the ConvNeXt blocks and the inverse-STFT head,
SNAC the multi-scale residual quantizer, DAC (arXiv 2306.06546) the factorised codebooks and losses.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import snac
import torch
from snac.layers import DecoderBlock, NoiseBlock, ResidualUnit
from snac.vq import ResidualVectorQuantize
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from omni_lite.config import CodecConfig
from omni_lite.vocab import CODEC_RATE, FRAME_ORDER, FRAME_SAMPLES, LEVEL_STRIDES, NUM_STREAMS

WINDOW = 1024                                # samples of one STFT window: 42.7 ms
HOP = 256                                    # samples between STFT columns: 93.75 columns/s
TRIM = (WINDOW - HOP) // 2                   # 384 samples cut at each side: L columns = 256 * L samples
OVERLAP = WINDOW // HOP                      # 4 windows lie over every sample
BINS = WINDOW // 2 + 1                       # 513 frequencies
MAX_MAGNITUDE = WINDOW / 4                   # what a full-scale sine gives under a Hann window: 256
ENCODER_MELS = 100                           # mel bins the encoder hears, 0..12 kHz

KERNEL = 7                                   # columns seen by one depthwise convolution
# How many columns each decoder block looks ahead. With the inverse STFT this makes exactly one frame:
#   stage 1, columns of 512 samples:   (1 + 1 + 0 + 0) * 512 = 1024
#   stage 2, columns of 256 samples:   (1 + 1 + 0 + 0) * 256 =  512
#   inverse STFT, 2 columns:                        2 * 256 =  512     sum 2048 = FRAME_SAMPLES
STAGE_1_LOOKAHEAD = (1, 1, 0, 0)
STAGE_2_LOOKAHEAD = (1, 1, 0, 0)
ENCODER_LOOKAHEAD = (3, 3, 3, 3)             # the encoder is used offline only: centred

# The seven scales of DAC's loss: samples of the window, mel bins (hop = window / 4)
LOSS_SCALES = ((2048, 320), (1024, 160), (512, 80), (256, 40), (128, 20), (64, 10), (32, 5))
LOSS_FLOOR = 1e-5                            # magnitudes below this count as silence
CODEBOOK_WEIGHT = 0.5                        # of the quantizer's losses beside the log-mel distance
COMMITMENT_WEIGHT = 0.25


# --- the order of the seven tokens --------------------------------------------------------------


def frames_from_levels(levels: list[Tensor]) -> Tensor:
    """Weave the three levels into frames of seven tokens.

    levels:  (B, T), (B, 2T), (B, 4T) int64
    returns: (B, 7, T) int64, streams in the order of `vocab.FRAME_ORDER`
    source:  gpt-omni/mini-omni utils/snac_utils.py::reconstruct_tensors (its inverse)
    """
    streams = []
    for level, position in FRAME_ORDER:
        per_frame = LEVEL_STRIDES[0] // LEVEL_STRIDES[level]
        streams.append(levels[level][:, position::per_frame])
    return torch.stack(streams, dim=1)


def levels_from_frames(codes: Tensor) -> list[Tensor]:
    """Part frames of seven tokens into the three levels; the inverse of `frames_from_levels`.

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
            "drop the special ids (end, pad) before decoding"
        )


def check_wav(wav: Tensor) -> None:
    """Raise ValueError unless `wav` is (B, 1, N) of finite float32 with N > 0."""
    if wav.dim() != 3 or wav.shape[1] != 1 or wav.shape[2] == 0:
        raise ValueError(f"the wave must have the shape (B, 1, N) with N > 0, got {tuple(wav.shape)}")
    if wav.dtype != torch.float32:
        raise ValueError(f"the wave must be float32 in -1..1, got {wav.dtype}")
    if not torch.isfinite(wav).all():
        raise ValueError("the wave holds NaN or infinite samples")


def pad_to_frames(wav: Tensor, frame_samples: int = FRAME_SAMPLES) -> Tensor:
    """Append silence up to a whole number of frames: (B, 1, N) -> (B, 1, T * frame_samples)."""
    return F.pad(wav, (0, -wav.shape[-1] % frame_samples))


# --- spectra: always in float32, also under bf16 autocast ---------------------------------------


def mel_matrix(bins: int, mels: int) -> Tensor:
    """Slaney's mel filters for 24 kHz: (bins, mels) float32, 0..12 kHz."""
    filters = mel_filter_bank(bins, mels, 0.0, CODEC_RATE / 2, CODEC_RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters).float()


def sum_of_windows(spectrum: Tensor, window: Tensor) -> Tensor:
    """The inverse STFT before it is trimmed and levelled.

    spectrum: (B, L, 513) complex64;  window: (1024,) Hann
    returns:  (B + 1, 256 * (L + 3)): B rows of overlapping windows of sound added up, then
              one row of the squared windows added up, by which the sound is to be divided
    """
    B, L, _ = spectrum.shape
    pieces = torch.fft.irfft(spectrum, n=WINDOW) * window  # (B, L, 1024)
    pieces = torch.cat([pieces, window.square().expand(1, L, WINDOW)]).view(B + 1, L, OVERLAP, HOP)
    # quarter k of a window falls k hops after its column
    quarters = [F.pad(pieces[:, :, k], (0, 0, k, OVERLAP - 1 - k)) for k in range(OVERLAP)]
    return torch.stack(quarters).sum(dim=0).flatten(1)


def level_windows(summed: Tensor) -> Tensor:
    """Divide the B rows of sound by the row of squared windows: (B + 1, N) -> (B, 1, N)."""
    return (summed[:-1] / summed[-1:]).unsqueeze(1)


def inverse_stft(spectrum: Tensor, window: Tensor) -> Tensor:
    """Sound in which every column owns one hop of 256 samples ("same" padding).

    At the two ends fewer than four windows lie over a sample; the division is by their true
    sum there, too. `torch.istft` refuses such ends.

    spectrum: (B, L, 513) complex64;  window: (1024,) Hann
    returns:  (B, 1, 256 * L) float32
    source:   Vocos, vocos/spectral_ops.py::ISTFT
    """
    return level_windows(sum_of_windows(spectrum, window)[:, TRIM:-TRIM])


# --- streaming ----------------------------------------------------------------------------------
#
# A decoder is a row of stages. Each stage remembers just the columns that it still needs. It
# starts with the zeros that pad the offline layer on the left and ends with those on the right:
# so the chunks, put together, are the offline sound, whatever the size of the chunks.


class Stage(Protocol):
    """One layer of a streaming decoder."""

    def push(self, x: Tensor | None, end: bool) -> Tensor | None:
        """Take the next columns (None: no new ones), give those now final; `end`: no more will come."""


class Pointwise:
    """A layer that sees one column at a time: nothing to remember."""

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
        self.kept = columns.narrow(self.axis, ready, span).clone()  # a view would keep the whole chunk alive
        return self.layer(columns)

    def _zeros(self, like: Tensor, columns: int) -> Tensor:
        shape = list(like.shape)
        shape[self.axis] = columns
        return like.new_zeros(shape)


class OverlapAdd:
    """A layer that makes samples out of columns, where the samples of neighbours overlap and add.

    layer: L columns -> (..., L * step + tail) samples, the last `tail` of them not final
    first: samples to drop where the sound starts
    last:  samples to drop where it ends, at most `tail`
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
    """Codes in, sound out, while the codes are still being made.

    Put together, all chunks equal `decode` of all codes. State and cost per frame do not
    grow with time. One stream speaks one utterance: `codec.stream()` opens the next.
    """

    def __init__(self, quantizer: ResidualVectorQuantize, stages: list[Stage]) -> None:
        self.quantizer = quantizer
        self.stages = stages
        self.batch: int | None = None        # B, known from the first push on
        self.ended = False

    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames, give the samples that are final.

        codes:   (B, 7, n) int64, n >= 0, no special ids
        returns: (B, 1, m) float32, m >= 0
        raises:  ValueError on wrong codes, another B than before, or after `flush`
        """
        if self.ended:
            raise ValueError("this stream has been flushed: open a new one with codec.stream()")
        check_codes(codes, self.quantizer.codebook_size)
        B, _, n = codes.shape
        if self.batch not in (None, B):
            raise ValueError(f"this stream speaks {self.batch} voices at a time, got codes for {B}")
        self.batch = B
        return self._run(codes if n > 0 else None, end=False)

    def flush(self) -> Tensor:
        """End the utterance: (B, 1, m), the samples that waited for frames to come."""
        x = self._run(None, end=not self.ended)  # a second flush has nothing left to give
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


# --- LiteSNAC -----------------------------------------------------------------------------------


class ConvNeXtBlock(nn.Module):
    """Mix neighbours in time within each channel, then channels within each column.

    Time is the second axis: the pointwise layers are plain Linear, and the depthwise
    convolution, run as a 2-d one in channels-last layout, is 2 to 3 times faster on a CPU
    than Conv1d between two transposes.

    source: arXiv 2201.03545; in one dimension as in Vocos, vocos/modules.py::ConvNeXtBlock
    """

    def __init__(self, width: int, lookahead: int, scale: float) -> None:
        super().__init__()
        self.left, self.right = KERNEL - 1 - lookahead, lookahead  # columns seen before and after
        self.depthwise = nn.Conv1d(width, width, KERNEL, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.shrink = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); beyond both ends lie zeros."""
        return self.inner(F.pad(x, (0, 0, self.left, self.right)))

    def inner(self, x: Tensor) -> Tensor:
        """The same without padding, for streaming: (B, L + 6, D) -> (B, L, D)."""
        L = x.shape[1] - self.left - self.right
        image = x.transpose(1, 2).unsqueeze(2)  # (B, D, 1, L + 6), channels last in memory
        y = F.conv2d(image, self.depthwise.weight.unsqueeze(2), self.depthwise.bias, groups=image.shape[1])
        y = self.norm(y.squeeze(2).transpose(1, 2))
        y = self.shrink(F.gelu(self.expand(y)))
        return x[:, self.left : self.left + L] + self.scale * y


def convnext_stage(width: int, lookaheads: tuple[int, ...]) -> nn.Sequential:
    """ConvNeXt blocks one after another, one for each entry of `lookaheads`."""
    return nn.Sequential(*(ConvNeXtBlock(width, r, scale=1 / len(lookaheads)) for r in lookaheads))


def stream_stage(stage: nn.Sequential) -> list[Stage]:
    """The same blocks in a streaming decoder."""
    blocks = [block for block in stage if isinstance(block, ConvNeXtBlock)]
    return [Windowed(block.inner, block.left, block.right, axis=1) for block in blocks]


class LiteEncoder(nn.Module):
    """Sound to latent columns: log-mel, two columns stacked, four ConvNeXt blocks."""

    window: Tensor
    mel: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("mel", mel_matrix(BINS, ENCODER_MELS), persistent=False)
        self.stem = nn.Linear(2 * ENCODER_MELS, width)
        self.stem_norm = nn.LayerNorm(width)
        self.blocks = convnext_stage(width, ENCODER_LOOKAHEAD)
        self.norm = nn.LayerNorm(width)

    def log_mel(self, wav: Tensor) -> Tensor:
        """(B, 1, N) -> (B, N / 256, 100): natural log of mel magnitudes, silence at -11.5."""
        with torch.autocast(wav.device.type, enabled=False):
            padded = F.pad(wav.float().squeeze(1), (TRIM, TRIM))
            spectrum = torch.stft(padded, WINDOW, HOP, window=self.window, center=False, return_complex=True)
            return (spectrum.abs().transpose(1, 2) @ self.mel).clamp(min=LOSS_FLOOR).log()

    def forward(self, wav: Tensor) -> Tensor:
        """(B, 1, N), N a multiple of 512 -> (B, N / 512, D)."""
        columns = self.log_mel(wav)
        B, L, M = columns.shape
        x = self.stem_norm(self.stem(columns.reshape(B, L // 2, 2 * M)))
        return self.norm(self.blocks(x))


class LiteDecoder(nn.Module):
    """Latent columns to sound, looking at most one frame ahead (see STAGE_1_LOOKAHEAD)."""

    window: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.stage_1 = convnext_stage(width, STAGE_1_LOOKAHEAD)
        self.upsample = nn.Linear(width, 2 * width)
        self.stage_2 = convnext_stage(width, STAGE_2_LOOKAHEAD)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * BINS)

    def twice(self, x: Tensor) -> Tensor:
        """Twice as many columns: (B, L, D) -> (B, 2L, D)."""
        B, L, D = x.shape
        return self.upsample(x).view(B, 2 * L, D)

    def spectrum(self, x: Tensor) -> Tensor:
        """Magnitude and phase of every column: (B, L, D) -> (B, L, 513) complex64."""
        log_magnitude, phase = self.head(self.norm(x)).float().split(BINS, dim=-1)
        return torch.polar(log_magnitude.clamp(max=math.log(MAX_MAGNITUDE)).exp(), phase)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, L, D) -> (B, 1, 512 * L)."""
        spectrum = self.spectrum(self.stage_2(self.twice(self.stage_1(latents))))
        return inverse_stft(spectrum, self.window)

    def stream(self) -> list[Stage]:
        """The same, layer by layer: (B, D, L) latents in, (B, 1, N) sound out."""

        def windows(x: Tensor) -> Tensor:
            return sum_of_windows(self.spectrum(x), self.window)

        return [
            Pointwise(lambda latents: latents.transpose(1, 2)),
            *stream_stage(self.stage_1),
            Pointwise(self.twice),
            *stream_stage(self.stage_2),
            OverlapAdd(windows, tail=WINDOW - HOP, first=TRIM, last=TRIM),
            Pointwise(level_windows),
        ]


@dataclass
class Quantized:
    """What the quantizer found, with the two losses that train its codebooks."""

    latents: Tensor                          # (B, D, L) sum of the three levels' vectors
    levels: list[Tensor]                     # (B, D, L) each level's own, of which `wrong` ones are others
    codes: list[Tensor]                      # (B, T), (B, 2T), (B, 4T) int64
    projected: list[Tensor]                  # (B * columns, C) what each level searched for, detached
    codebook_loss: Tensor                    # entries drawn to the latents
    commitment_loss: Tensor                  # latents drawn to the entries


def quantize(quantizer: ResidualVectorQuantize, latents: Tensor, wrong: Sequence[float] = (0, 0, 0)) -> Quantized:
    """The package's residual quantizer with the training losses that it leaves out.

    `snac` ships inference code: its forward passes gradients straight through to the latents
    but gives none to the codebooks. This walks over the same modules, finds the same codes
    and the same sum, and adds DAC's two losses, both in the C = 8 dimensions of the search.

    latents: (B, D, L), L a multiple of 4
    wrong:   for each level the share of entries that are replaced by any other in `levels`, for training
    source:  snac.vq.ResidualVectorQuantize.forward; DAC, dac/nn/quantize.py::VectorQuantize
    """
    with torch.autocast(latents.device.type, enabled=False):
        residual = latents.float()
        total = torch.zeros_like(residual)
        codebook_loss = commitment_loss = residual.new_zeros(())
        codes, projected, levels = [], [], []
        for level, share in zip(quantizer.quantizers, wrong, strict=True):
            pooled = F.avg_pool1d(residual, level.stride) if level.stride > 1 else residual
            wanted = level.in_proj(pooled)  # (B, C, L / stride)
            entries, indices = level.decode_latents(wanted)
            codebook_loss = codebook_loss + F.mse_loss(entries, wanted.detach())
            commitment_loss = commitment_loss + F.mse_loss(wanted, entries.detach())
            straight_through = wanted + (entries - wanted).detach()
            value = level.out_proj(straight_through).repeat_interleave(level.stride, dim=-1)
            total = total + value
            residual = residual - value
            if share:
                slips = (torch.rand(indices.shape, device=indices.device) < share)[:, None]
                others = level.decode_code(torch.randint_like(indices, level.codebook_size))
                heard = torch.where(slips, others, straight_through)
                value = level.out_proj(heard).repeat_interleave(level.stride, dim=-1)
            levels.append(value)
            codes.append(indices)
            projected.append(wanted.detach().transpose(1, 2).flatten(0, 1))
    return Quantized(total, levels, codes, projected, codebook_loss, commitment_loss)


class LiteSNAC(nn.Module):
    """The small codec: 24 kHz sound <-> (B, 7, T) codes, about 5.3 M parameters.

    encode     log-mel -> 4 ConvNeXt blocks -> residual quantizer with strides 4, 2, 1
    decode     -> 4 blocks -> x2 in time -> 4 blocks -> magnitude and phase -> inverse STFT
    stream     the same sound, frame by frame, at most one frame late

    To train: `forward`, then `codec_loss`; now and then `reseed_unused_codes`.
    """

    sample_rate = CODEC_RATE
    frame_samples = FRAME_SAMPLES
    idle: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.codebook_size = config.codebook
        self.encoder = LiteEncoder(config.width)
        self.quantizer = ResidualVectorQuantize(
            config.width, config.codebook, config.codebook_dim, vq_strides=list(LEVEL_STRIDES)
        )
        self.decoder = LiteDecoder(config.width)
        idle = torch.zeros(len(LEVEL_STRIDES), config.codebook, dtype=torch.int64)
        self.register_buffer("idle", idle, persistent=False)  # training steps since each entry's last use

    def forward(
        self, wav: Tensor, kept: Tensor | None = None, wrong: Sequence[float] = (0, 0, 0)
    ) -> tuple[Tensor, Quantized]:
        """Encode and decode with gradients, for training.

        wav:     (B, 1, N) float32 at 24 kHz
        kept:    (B,) int64, how many levels the decoder hears of each sound, coarse ones first; None: all
        wrong:   as in `quantize`
        returns: the reconstruction (B, 1, N), and what the quantizer found
        """
        latents = self.encoder(pad_to_frames(wav))
        quantized = quantize(self.quantizer, latents.transpose(1, 2), wrong)
        if self.training:
            self._count_idle(quantized.codes)
        heard = torch.stack(quantized.levels)  # (3, B, D, L)
        if kept is not None:
            heard = heard * (torch.arange(len(heard), device=kept.device)[:, None] < kept)[..., None, None]
        reconstruction = self.decoder(heard.sum(0).transpose(1, 2))
        return reconstruction[..., : wav.shape[-1]], quantized

    def _count_idle(self, codes: list[Tensor]) -> None:
        self.idle += 1
        for idle, indices in zip(self.idle, codes, strict=True):
            idle[indices.flatten()] = 0

    @torch.no_grad()
    def reseed_unused_codes(self, quantized: Quantized, idle_steps: int = 50) -> int:
        """Move entries that won no column for `idle_steps` training steps to where latents are now.

        Entries start at random; those far from every latent never win and so never get a
        gradient. Call it every few steps while training is young, right after the optimizer.

        No two entries move to the same column, so one call moves at most as many as there are.

        quantized: what the latest `forward` returned
        returns:   how many entries of the three levels were moved
        """
        moved = 0
        levels = self.quantizer.quantizers
        for level, idle, latents in zip(levels, self.idle, quantized.projected, strict=True):
            unused = (idle >= idle_steps).nonzero().flatten()[: len(latents)]
            chosen = torch.randperm(len(latents), device=latents.device)[: len(unused)]
            level.codebook.weight[unused] = latents[chosen].to(level.codebook.weight.dtype)
            idle[unused] = 0
            moved += len(unused)
        return moved

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Sound to codes; silence fills the last frame.

        wav:     (B, 1, N) float32 at 24 kHz
        returns: (B, 7, T) int64, T = N / 2048 rounded up
        raises:  ValueError on a wrong shape or dtype, or NaN
        """
        check_wav(wav)
        latents = self.encoder(pad_to_frames(wav)).transpose(1, 2)
        return frames_from_levels(quantize(self.quantizer, latents).codes)

    @torch.no_grad()
    def encode_takes(self, wav: Tensor) -> list[Tensor]:
        """The codes of the same sound begun 0, 1/4, 2/4 and 3/4 of a frame later, behind silence.

        Where a frame begins within a word is chance, and changes every code: to who learns to speak these
        are four recordings. The encoder runs once for all.

        wav: (N,) float32 at 24 kHz; returns: four of (7, T) int64, T as in `encode` of what is heard
        """
        column = FRAME_SAMPLES // LEVEL_STRIDES[0]
        later = range(LEVEL_STRIDES[0])
        silence = column * later[-1]
        latents = self.encoder(pad_to_frames(F.pad(wav[None, None], (silence, FRAME_SAMPLES)))).transpose(1, 2)
        takes = []
        for k in later:
            T = math.ceil((len(wav) + k * column) / FRAME_SAMPLES)
            first = later[-1] - k
            some = latents[..., first : first + T * LEVEL_STRIDES[0]]
            takes.append(frames_from_levels(quantize(self.quantizer, some).codes)[0])
        return takes

    @torch.no_grad()
    def decode(self, codes: Tensor, seed: int = 0) -> Tensor:
        """Codes to sound.

        codes:   (B, 7, T) int64, no special ids
        seed:    not used: this codec draws no noise; `Snac` does
        returns: (B, 1, T * 2048) float32
        raises:  ValueError on a wrong shape or dtype, or an id outside the codebook
        """
        check_codes(codes, self.codebook_size)
        if codes.shape[-1] == 0:
            return torch.zeros(codes.shape[0], 1, 0, device=codes.device)
        return self.decoder(self.quantizer.from_codes(levels_from_frames(codes)).transpose(1, 2))

    def stream(self, seed: int = 0) -> CodecStream:
        """A decoder for codes that come frame by frame; borrows this module's weights.

        The first frame gives 128 samples, each later one 2048, `flush` the last 1920.
        seed: not used, see `decode`
        """
        return CodecStream(self.quantizer, self.decoder.stream())


# --- the training loss --------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _loss_scale(window: int, mels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.hann_window(window, device=device), mel_matrix(window // 2 + 1, mels).to(device)


def log_mel_distance(reconstruction: Tensor, wav: Tensor) -> Tensor:
    """How differently two sounds are heard: mean |difference| of log10 mel magnitudes.

    Summed over seven window lengths, 85 ms to 1.3 ms: long windows judge pitch, short ones timing.

    reconstruction, wav: (B, 1, N), N > 1024
    source:  DAC, dac/nn/loss.py::MelSpectrogramLoss
    """
    with torch.autocast(wav.device.type, enabled=False):
        distance = wav.new_zeros((), dtype=torch.float32)
        for size, mels in LOSS_SCALES:
            window, mel = _loss_scale(size, mels, wav.device)
            heard = []
            for sound in (reconstruction, wav):
                sound = sound.float().squeeze(1)
                spectrum = torch.stft(sound, size, size // 4, window=window, return_complex=True)
                heard.append((mel.T @ spectrum.abs()).clamp(min=LOSS_FLOOR).log10())
            distance = distance + F.l1_loss(heard[0], heard[1])
    return distance


def codec_loss(reconstruction: Tensor, wav: Tensor, quantized: Quantized) -> dict[str, Tensor]:
    """What LiteSNAC minimises: log-mel distance + 0.5 * (codebook + 0.25 * commitment).

    reconstruction, wav: (B, 1, N), N > 1024; the former and `quantized` from `LiteSNAC.forward`
    returns: scalars "loss" (to call backward on), "mel", "codebook", "commitment"
    """
    mel = log_mel_distance(reconstruction, wav)
    quantizer = quantized.codebook_loss + COMMITMENT_WEIGHT * quantized.commitment_loss
    return {
        "loss": mel + CODEBOOK_WEIGHT * quantizer,
        "mel": mel.detach(),
        "codebook": quantized.codebook_loss.detach(),
        "commitment": quantized.commitment_loss.detach(),
    }


# --- the published codec ------------------------------------------------------------------------

SNAC_24KHZ = {                               # hubertsiuzdak/snac_24khz, config.json
    "sampling_rate": CODEC_RATE,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": list(LEVEL_STRIDES),
    "noise": True,
    "depthwise": True,
}


class NoiseSource:
    """Gaussian noise that depends on the seed alone, not on how it is asked for.

    `torch.randn` of 2n numbers differs from twice n, so noise is always drawn in pieces of one
    frame. Every row of a batch hears the same noise: a row decodes alike alone and in a batch.
    """

    def __init__(self, seed: int, piece: int) -> None:
        self.piece = piece                   # numbers drawn at a time
        self.generator = torch.Generator().manual_seed(seed)
        self.left_over = torch.zeros(1, 1, 0)

    def take(self, like: Tensor) -> Tensor:
        """The next L numbers for `like` (B, C, L): (1, 1, L) of its device and dtype."""
        L = like.shape[-1]
        pieces = [self.left_over]
        for _ in range(math.ceil((L - self.left_over.shape[-1]) / self.piece)):
            pieces.append(torch.randn(1, 1, self.piece, generator=self.generator))
        noise = torch.cat(pieces, dim=-1)
        self.left_over = noise[..., L:].clone()
        return noise[..., :L].to(like)


class Snac(nn.Module):
    """`snac.SNAC` with the interface of LiteSNAC: (B, 7, T) codes, repeatable noise, streaming.

    model: a SNAC with three levels of strides 4, 2, 1 and no attention, such as the 24 kHz one
    """

    def __init__(self, model: snac.SNAC) -> None:
        super().__init__()
        if tuple(model.vq_strides) != LEVEL_STRIDES or model.attn_window_size is not None:
            raise ValueError(
                f"frames of seven tokens need a SNAC with strides {LEVEL_STRIDES} and no attention, "
                f"got strides {tuple(model.vq_strides)} and attention window {model.attn_window_size}"
            )
        self.model = model
        self.sample_rate = int(model.sampling_rate)
        self.codebook_size = int(model.codebook_size)
        self.frame_samples = int(model.hop_length) * LEVEL_STRIDES[0]  # 2048 at 24 kHz

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Sound to codes; silence fills the last frame.

        wav:     (B, 1, N) float32 at `sample_rate`
        returns: (B, 7, T) int64, T = N / frame_samples rounded up
        raises:  ValueError on a wrong shape or dtype, or NaN
        """
        check_wav(wav)
        return frames_from_levels(self.model.encode(wav))

    @torch.no_grad()
    def decode(self, codes: Tensor, seed: int = 0) -> Tensor:
        """Codes to sound, with the package's own modules; only the noise is drawn here.

        codes:   (B, 7, T) int64, no special ids
        seed:    the same seed gives the same sound
        returns: (B, 1, T * frame_samples) float32
        raises:  ValueError on a wrong shape or dtype, or an id outside the codebook
        """
        check_codes(codes, self.codebook_size)
        if codes.shape[-1] == 0:
            return torch.zeros(codes.shape[0], 1, 0, device=codes.device)
        x = self.model.quantizer.from_codes(levels_from_frames(codes))
        noises = self._noise_sources(seed)
        for layer in self.model.decoder.model:
            for part in layer.block if isinstance(layer, DecoderBlock) else [layer]:
                x = x + next(noises).take(x) * part.linear(x) if isinstance(part, NoiseBlock) else part(x)
        return x

    def stream(self, seed: int = 0) -> CodecStream:
        """A decoder for codes that come frame by frame; takes this module's weights as they are now.

        seed: of the noise, as in `decode`
        """
        noises = self._noise_sources(seed)
        stages: list[Stage] = []
        for layer in self.model.decoder.model:
            for part in layer.block if isinstance(layer, DecoderBlock) else [layer]:
                if isinstance(part, nn.Conv1d):
                    stages.append(_stream_conv(part))
                elif isinstance(part, nn.ConvTranspose1d):
                    stages += _stream_transposed(part)
                elif isinstance(part, ResidualUnit):
                    stages.append(_stream_residual(part))
                elif isinstance(part, NoiseBlock):
                    stages.append(_stream_noise(part, next(noises)))
                else:
                    stages.append(Pointwise(part))  # Snake1d, Tanh
        return CodecStream(self.model.quantizer, stages)

    def _noise_sources(self, seed: int) -> Iterator[NoiseSource]:
        """One for each noise block, in order; a piece is what one frame has there."""
        blocks = [layer.block for layer in self.model.decoder.model if isinstance(layer, DecoderBlock)]
        piece = LEVEL_STRIDES[0]             # columns of a frame before the first block
        for index, block in enumerate(blocks):
            piece *= next(part.stride[0] for part in block if isinstance(part, nn.ConvTranspose1d))
            yield NoiseSource(seed * len(blocks) + index, piece)


def _unpadded(conv: nn.Conv1d) -> Callable[[Tensor], Tensor]:
    """The convolution without its padding, its normalised weight computed once, not at every call."""
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    return lambda x: F.conv1d(x, weight, bias, dilation=conv.dilation, groups=conv.groups)


def _stream_conv(conv: nn.Conv1d) -> Windowed:
    reach = int(conv.padding[0])
    return Windowed(_unpadded(conv), reach, reach, axis=2)


def _stream_transposed(conv: nn.ConvTranspose1d) -> list[Stage]:
    assert conv.bias is not None             # snac's always have one
    weight, bias = conv.weight.detach(), conv.bias.detach()[:, None]
    stride, kernel, trim = conv.stride[0], conv.kernel_size[0], int(conv.padding[0])
    spread = OverlapAdd(
        lambda x: F.conv_transpose1d(x, weight, stride=stride),
        tail=kernel - stride,
        first=trim,
        last=trim - conv.output_padding[0],
    )
    return [spread, Pointwise(lambda x: x + bias)]


def _stream_residual(unit: ResidualUnit) -> Windowed:
    """Snake, wide convolution, snake, 1x1 convolution and the skip; padding stays zero in a snake."""
    snake_1, wide, snake_2, narrow = unit.block
    convolve, mix, reach = _unpadded(wide), _unpadded(narrow), wide.padding[0]

    def layer(x: Tensor) -> Tensor:
        return x[..., reach : x.shape[-1] - reach] + mix(snake_2(convolve(snake_1(x))))

    return Windowed(layer, reach, reach, axis=2)


def _stream_noise(block: NoiseBlock, source: NoiseSource) -> Pointwise:
    linear = _unpadded(block.linear)
    return Pointwise(lambda x: x + source.take(x) * linear(x))


def build_codec(config: CodecConfig) -> LiteSNAC | Snac:
    """A codec with random weights in eval mode; `weights.py` fills in trained ones."""
    if config.kind == "lite":
        return LiteSNAC(config).eval()
    if config.kind == "snac":
        sizes = SNAC_24KHZ | {"codebook_size": config.codebook, "codebook_dim": config.codebook_dim}
        return Snac(snac.SNAC(**sizes)).eval()
    raise ValueError(f'a codec is "lite" or "snac", got {config.kind!r}')
