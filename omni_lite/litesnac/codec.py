"""LiteSNAC, the small codec: sound to codes, codes to sound.

A frame is 2048 samples (85.3 ms) of 24 kHz sound: four columns of 512 samples, seven codes. Level 0 gives
one code to all four columns, level 1 one to each half, level 2 one to each column.

Letters, besides those of `vocab.py`:  L columns in time (several rates)   C codebook dimensions

Sources: Vocos (arXiv 2306.00814) for the ConvNeXt blocks and the inverse-STFT head; SNAC (arXiv 2410.14411)
for the multi-scale residual quantizer; DAC (arXiv 2306.06546) for the factorised codebooks and losses.
`interop.snac.Snac` gives the published SNAC the same interface.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from snac.vq import ResidualVectorQuantize
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from omni_lite.codec import (
    CodecStream,
    OverlapAdd,
    Pointwise,
    Stage,
    Windowed,
    check_codes,
    check_wav,
    frames_from_levels,
    levels_from_frames,
    pad_to_frames,
)
from omni_lite.config import CodecConfig
from omni_lite.convnext import ConvNeXtBlock
from omni_lite.vocab import CODEC_RATE, FRAME_SAMPLES, LEVEL_STRIDES

WINDOW = 1024                                # samples of one STFT window: 42.7 ms
HOP = 256                                    # samples between STFT columns: 93.75 columns/s
TRIM = (WINDOW - HOP) // 2                   # 384 samples cut at each side: L columns = 256 * L samples
OVERLAP = WINDOW // HOP                      # 4 windows overlap at every sample
BINS = WINDOW // 2 + 1                       # 513 frequencies
MAX_MAGNITUDE = WINDOW / 4                   # what a full-scale sine gives under a Hann window: 256
ENCODER_MELS = 100                           # mel bins of the encoder's input, 0..12 kHz
# How many columns each decoder block looks ahead. With the inverse STFT they add up to one frame:
#   stage 1, columns of 512 samples:   (1 + 1 + 0 + 0) * 512 = 1024
#   stage 2, columns of 256 samples:   (1 + 1 + 0 + 0) * 256 =  512
#   inverse STFT, 2 columns:                        2 * 256 =  512     sum 2048 = FRAME_SAMPLES
STAGE_1_LOOKAHEAD = (1, 1, 0, 0)
STAGE_2_LOOKAHEAD = (1, 1, 0, 0)
ENCODER_LOOKAHEAD = (3, 3, 3, 3)             # centred: the encoder never streams
LOSS_FLOOR = 1e-5                            # magnitudes below this count as silence


# --- spectra: always in float32, also under bf16 autocast ---------------------------------------


def mel_matrix(bins: int, mels: int) -> Tensor:
    """Slaney's mel filters for 24 kHz: (bins, mels) float32, 0..12 kHz."""
    filters = mel_filter_bank(bins, mels, 0.0, CODEC_RATE / 2, CODEC_RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters).float()


def sum_of_windows(spectrum: Tensor, window: Tensor) -> Tensor:
    """The inverse STFT before `divide_windows`: overlapping windows, added up.

    spectrum: (B, L, 513) complex64;  window: (1024,) Hann
    returns:  (B + 1, 256 * (L + 3)): B sounds, then the sum of the squared windows
    """
    B, L, _ = spectrum.shape
    pieces = torch.fft.irfft(spectrum, n=WINDOW) * window  # (B, L, 1024)
    pieces = torch.cat([pieces, window.square().expand(1, L, WINDOW)]).view(B + 1, L, OVERLAP, HOP)
    # quarter k of a window begins k hops after its column
    quarters = [F.pad(pieces[:, :, k], (0, 0, k, OVERLAP - 1 - k)) for k in range(OVERLAP)]
    return torch.stack(quarters).sum(dim=0).flatten(1)


def divide_windows(summed: Tensor) -> Tensor:
    """Divide the B sounds by the sum of squared windows: (B + 1, N) -> (B, 1, N)."""
    return (summed[:-1] / summed[-1:]).unsqueeze(1)


def inverse_stft(spectrum: Tensor, window: Tensor) -> Tensor:
    """The inverse STFT with "same" padding: one hop of 256 samples for every column.

    At the two ends fewer than four windows overlap. `torch.istft` refuses such ends; here the
    sound is divided by the true sum there too.

    spectrum: (B, L, 513) complex64;  window: (1024,) Hann
    returns:  (B, 1, 256 * L) float32
    source:   Vocos, vocos/spectral_ops.py::ISTFT
    """
    return divide_windows(sum_of_windows(spectrum, window)[:, TRIM:-TRIM])


def convnext_stage(width: int, lookaheads: tuple[int, ...]) -> nn.Sequential:
    """One ConvNeXt block for each entry of `lookaheads`, in sequence."""
    return nn.Sequential(*(ConvNeXtBlock(width, r, scale=1 / len(lookaheads)) for r in lookaheads))


def stream_stage(stage: nn.Sequential) -> list[Stage]:
    """The blocks as stages of a streaming decoder."""
    blocks = [block for block in stage if isinstance(block, ConvNeXtBlock)]
    return [Windowed(block.inner, block.left, block.right, axis=1) for block in blocks]


class LiteEncoder(nn.Module):
    """Sound to latent columns: log-mel, pairs of columns stacked, four ConvNeXt blocks."""

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
        """(B, 1, N) -> (B, N / 256, 100): natural log of mel magnitudes; silence is -11.5."""
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
    """Latent columns to sound, with one frame of lookahead (see STAGE_1_LOOKAHEAD)."""

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
        """Double the columns: (B, L, D) -> (B, 2L, D)."""
        B, L, D = x.shape
        return self.upsample(x).view(B, 2 * L, D)

    def spectrum(self, x: Tensor) -> Tensor:
        """The STFT of the sound, from magnitude and phase: (B, L, D) -> (B, L, 513) complex64."""
        log_magnitude, phase = self.head(self.norm(x)).float().split(BINS, dim=-1)
        return torch.polar(log_magnitude.clamp(max=math.log(MAX_MAGNITUDE)).exp(), phase)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, L, D) -> (B, 1, 512 * L)."""
        spectrum = self.spectrum(self.stage_2(self.twice(self.stage_1(latents))))
        return inverse_stft(spectrum, self.window)

    def stream(self) -> list[Stage]:
        """The decoder in stages: (B, D, L) latents in, (B, 1, N) sound out."""

        def windows(x: Tensor) -> Tensor:
            return sum_of_windows(self.spectrum(x), self.window)

        return [
            Pointwise(lambda latents: latents.transpose(1, 2)),
            *stream_stage(self.stage_1),
            Pointwise(self.twice),
            *stream_stage(self.stage_2),
            OverlapAdd(windows, tail=WINDOW - HOP, first=TRIM, last=TRIM),
            Pointwise(divide_windows),
        ]


@dataclass
class Quantized:
    """The quantizer's output, with the two losses that train its codebooks."""

    latents: Tensor                          # (B, D, L) sum of the three levels' vectors
    levels: list[Tensor]                     # (B, D, L) vectors of each level, a share `wrong` of them replaced
    codes: list[Tensor]                      # (B, T), (B, 2T), (B, 4T) int64
    projected: list[Tensor]                  # (B * columns, C) the search vectors of each level, detached
    codebook_loss: Tensor                    # pulls the entries to the latents
    commitment_loss: Tensor                  # pulls the latents to the entries


def quantize(quantizer: ResidualVectorQuantize, latents: Tensor, wrong: Sequence[float] = (0, 0, 0)) -> Quantized:
    """The package's residual quantizer with the training losses that it lacks.

    `snac` ships inference code: its forward passes gradients straight through to the latents but gives
    none to the codebooks. This function runs the same modules, so the codes and the sum are the same.
    It adds DAC's two losses, both in the C = 8 dimensions of the search.

    latents: (B, D, L), L a multiple of 4
    wrong:   for each level the share of `levels` that random entries replace, for training
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
                replaced = (torch.rand(indices.shape, device=indices.device) < share)[:, None]
                others = level.decode_code(torch.randint_like(indices, level.codebook_size))
                mixed = torch.where(replaced, others, straight_through)
                value = level.out_proj(mixed).repeat_interleave(level.stride, dim=-1)
            levels.append(value)
            codes.append(indices)
            projected.append(wanted.detach().transpose(1, 2).flatten(0, 1))
    return Quantized(total, levels, codes, projected, codebook_loss, commitment_loss)


class LiteSNAC(nn.Module):
    """24 kHz sound <-> (B, 7, T) codes, with about 5.3 M parameters.

    encode     log-mel -> 4 ConvNeXt blocks -> residual quantizer with strides 4, 2, 1
    decode     -> 4 blocks -> x2 in time -> 4 blocks -> magnitude and phase -> inverse STFT
    stream     the same sound frame by frame, at most one frame late

    `recipes.lite.codec` trains it with `forward` and `reseed_unused_codes`.
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
        self, wav: Tensor, num_levels: Tensor | None = None, wrong: Sequence[float] = (0, 0, 0)
    ) -> tuple[Tensor, Quantized]:
        """Encode and decode with gradients, for training.

        wav:        (B, 1, N) float32 at 24 kHz
        num_levels: (B,) int64, quantizer dropout: how many levels the decoder gets, coarse first; None: all
        wrong:      as in `quantize`
        returns:    the reconstruction (B, 1, N), the quantizer's output
        """
        latents = self.encoder(pad_to_frames(wav))
        quantized = quantize(self.quantizer, latents.transpose(1, 2), wrong)
        if self.training:
            self.idle += 1
            for idle, indices in zip(self.idle, quantized.codes, strict=True):
                idle[indices.flatten()] = 0
        levels = torch.stack(quantized.levels)  # (3, B, D, L)
        if num_levels is not None:
            kept = torch.arange(len(levels), device=num_levels.device)[:, None] < num_levels
            levels = levels * kept[..., None, None]
        reconstruction = self.decoder(levels.sum(0).transpose(1, 2))
        return reconstruction[..., : wav.shape[-1]], quantized

    @torch.no_grad()
    def reseed_unused_codes(self, quantized: Quantized, idle_steps: int = 50) -> int:
        """Move entries that no column chose for `idle_steps` training steps onto current latents.

        Entries start at random, and one that is far from every latent never gets a gradient.
        Call this every few steps early in training, after the optimizer's step.
        Each column receives at most one entry, so one call moves at most as many as there are columns.

        quantized: from the latest `forward`
        returns:   how many entries of the three levels were moved
        """
        moved = 0
        for level, idle, latents in zip(self.quantizer.quantizers, self.idle, quantized.projected, strict=True):
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
    def decode(self, codes: Tensor, seed: int = 0) -> Tensor:
        """Codes to sound.

        codes:   (B, 7, T) int64, no special tokens
        seed:    not used: `Snac` draws noise, this codec does not
        returns: (B, 1, T * 2048) float32
        raises:  ValueError on a wrong shape or dtype, or an id outside the codebook
        """
        check_codes(codes, self.codebook_size)
        if codes.shape[-1] == 0:
            return torch.zeros(codes.shape[0], 1, 0, device=codes.device)
        return self.decoder(self.quantizer.from_codes(levels_from_frames(codes)).transpose(1, 2))

    def stream(self, seed: int = 0) -> CodecStream:
        """A decoder for codes that come frame by frame; it shares this module's weights.

        The first frame gives 128 samples, each later one 2048, `flush` the last 1920.
        seed: not used, as in `decode`
        """
        return CodecStream(self.quantizer, self.decoder.stream())
