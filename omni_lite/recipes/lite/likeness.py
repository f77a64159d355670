"""Losses of the codec's training that compare sounds by Whisper.

    WhisperLikeness   predict Whisper's features from the codec's coarse levels
    SoundsAlike       distance of Whisper's layers between a decoded and a recorded sound

Shapes: letter legend in vocab.py.
"""

import numpy as np
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_lite.audio import log_mel
from omni_lite.hear import Ears
from omni_lite.litesnac.codec import Quantized
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FEATURES_PER_SECOND, FRAME_SAMPLES, LEVEL_STRIDES

COLUMN_SAMPLES = FRAME_SAMPLES // LEVEL_STRIDES[0]


class WhisperLikeness(nn.Module):
    """The error of small heads that predict Whisper's features from the codec's coarse levels.

    Codes that are trained only for the sound say little about the words. This loss makes the first level, and the first
    two together, carry them. Source: Moshi's Mimi, arXiv 2410.00037, section 3.3.2, with WavLM, and SpeechTokenizer,
    arXiv 2308.16692, with HuBERT.
    """

    def __init__(self, width: int, ears: Ears) -> None:
        super().__init__()
        self.ears = [ears]                   # in a list, so that Whisper is not trained or saved
        D = ears.width
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, width, 5, padding=2), nn.GELU(), nn.Conv1d(width, D, 1)) for _ in range(2))

    def forward(self, wav: Tensor, quantized: Quantized) -> Tensor:
        """wav (B, 1, N) at 24 kHz and its codes -> mean squared error; predicting the mean gives 1."""
        heard = self.columns(wav, quantized.latents.shape[-1])                 # (B, D, L)
        coarse = quantized.levels[0]
        both = coarse + quantized.levels[1]
        errors = [(head(x) - heard).square().mean() for head, x in zip(self.heads, (coarse, both), strict=True)]
        return torch.stack(errors).mean()

    @torch.no_grad()
    def columns(self, wav: Tensor, columns: int) -> Tensor:
        """Whisper's features at the middle of each codec column, each dimension normalised: (B, D, L)"""
        waves = scipy.signal.resample_poly(wav[:, 0].cpu().numpy(), EAR_RATE, CODEC_RATE, axis=1).astype(np.float32)
        features = self.ears[0].features([torch.from_numpy(wave) for wave in waves], bf16=True)[0].float()
        features = (features - features.mean((0, 1))) / features.std((0, 1)).clamp(min=1e-3)
        middles = torch.arange(columns, device=wav.device) + 0.5                                     # in columns
        middles = middles * COLUMN_SAMPLES / CODEC_RATE * FEATURES_PER_SECOND - 0.5                  # in features
        middles = middles.clamp(0, features.shape[1] - 1.001)
        low = middles.long()
        part = (middles - low)[:, None]
        return (features[:, low] * (1 - part) + features[:, low + 1] * part).transpose(1, 2)


class SoundsAlike(nn.Module):
    """Distance of two sounds in a middle layer and in the output of Whisper's encoder.

    Different words can have very similar spectra. Source of the idea: deep feature losses, arXiv 1806.10522.
    """

    def __init__(self, ears: Ears, after: int = 0) -> None:
        """after: samples of silence at 16 kHz that follow each sound"""
        super().__init__()
        self.ears, self.after = [ears], after          # in a list, so that Whisper is not trained or saved

    def forward(self, wav: Tensor, wanted: Tensor) -> Tensor:
        """Two sounds (B, 1, N) at 24 kHz -> mean distance of their features; only the first gets a gradient."""
        with torch.no_grad():
            there = self.seen(wanted)
        return self.apart(self.seen(wav), there)

    def seen(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """A middle layer and the output of Whisper's encoder, each (B, T, D)."""
        ears = self.ears[0]
        layers = list(ears.layers(log_mel(F.pad(to_ear_rate(wav[:, 0]), (0, self.after)), ears.n_mels)))
        return layers[len(ears.encoder.blocks) // 2 - 1], layers[-1]

    def apart(self, heard: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
        """The distance of two results of `seen`, both layers scaled to about unit size."""
        shape, size = wanted[0].shape[-1:], self.ears[0].encoder.ln_post.weight.abs().mean()
        halfway = F.l1_loss(F.layer_norm(heard[0], shape), F.layer_norm(wanted[0], shape))
        return halfway + F.l1_loss(heard[1], wanted[1]) / size


def to_ear_rate(wav: Tensor) -> Tensor:
    """Differentiable resampling by cutting the spectrum: (B, N) at 24 kHz, N % 6 == 0 -> (B, N * 2 / 3) at 16 kHz."""
    fewer = wav.shape[-1] * EAR_RATE // CODEC_RATE
    return torch.fft.irfft(torch.fft.rfft(wav.float())[..., : fewer // 2 + 1], n=fewer) * (EAR_RATE / CODEC_RATE)
