"""Transforms of a batch before the model's forward pass, called as `transform(heard, vocab)`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from omni_lite.data import Heard
from omni_lite.vocab import Vocab

BLUR, DEAF = 0.35, 0.1                       # `masked`: most noise, in feature standard deviations; most dimensions
MASKS, LONGEST_GAP = 2, 8                    # `masked`: gaps in a clip; their most features of 20 ms


@dataclass(frozen=True)
class Noise:
    """`with_noise` as a transform."""

    share: float

    def __call__(self, heard: Heard, vocab: Vocab) -> Heard:
        return with_noise(heard, vocab, self.share)


@dataclass(frozen=True)
class Mask:
    """`masked` as a transform."""

    share: float

    def __call__(self, heard: Heard, vocab: Vocab) -> Heard:
        if heard.features is None or heard.lengths is None:
            return heard
        return replace(heard, features=masked(heard.features, heard.lengths, self.share))


@dataclass(frozen=True)
class HideText:
    """`without_text` as a transform, on the text that the TTS adapter reads."""

    share: float

    def __call__(self, heard: Heard, vocab: Vocab) -> Heard:
        speaking = heard.speaks
        if not speaking.any():
            return heard
        return replace(heard, voice_text=without_text(heard.batch.text_in[speaking], vocab, self.share))


def with_noise(heard: Heard, vocab: Vocab, share: float) -> Heard:
    """Replace a share of the input codes by random codes; targets stay as they are.

    With teacher forcing alone, a small voice memorises its answers code by code and does not recover from its first
    mistake. Noise makes it read the text instead. `share` is the mean: each sequence has its own between 0 and twice
    this value.
    """
    if not share:
        return heard
    codes = heard.batch.audio_in
    own = 2 * share * torch.rand(len(codes), 1, 1)
    wrong = (codes < vocab.codebook) & (torch.rand(codes.shape) < own)
    others = torch.where(wrong, torch.randint(vocab.codebook, codes.shape), codes)
    return replace(heard, batch=replace(heard.batch, audio_in=others))


def masked(features: Tensor, lengths: Tensor, share: float) -> Tensor:
    """Mask a share of the clips: noise up to `BLUR`, up to `MASKS` gaps, up to `DEAF` of the dimensions for all T.

    Without masks the adapter overfits to a few dozen synthetic voices and mishears others. Source: SpecAugment, arXiv
    1904.08779, which masks times and bands of a spectrogram; this function masks encoder features.

    features: (B, T, D), zeros after each clip's length (B,); returns: (B, T, D), zeros there as well
    """
    if not share:
        return features
    B, T, D = features.shape
    inside = (torch.arange(T) < lengths[:, None])[..., None]               # (B, T, 1)
    known = features[inside[..., 0]]                                       # (n, D)
    mean, spread = known.mean(0), known.std(0)
    x = features + BLUR * torch.rand(B, 1, 1) * spread * torch.randn(B, T, D)
    for _ in range(MASKS):
        first = torch.rand(B, 1) * lengths[:, None]
        gap = (torch.arange(T) >= first) & (torch.arange(T) < first + LONGEST_GAP * torch.rand(B, 1))
        x = torch.where(gap[..., None], mean, x)
    x = torch.where(torch.rand(B, 1, D) < DEAF * torch.rand(B, 1, 1), mean, x)
    return torch.where(inside & (torch.rand(B, 1, 1) < share), x, features)


def without_text(text_ids: Tensor, vocab: Vocab, share: float) -> Tensor:
    """Hide the whole text stream of a share of the sequences: (B, S) -> (B, S).

    This trains the unconditional voice of classifier-free guidance, see `Sampling.guidance`.
    """
    if not share:
        return text_ids
    return text_ids.masked_fill(torch.rand(len(text_ids), 1) < share, vocab.pad_t)
