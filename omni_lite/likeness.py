"""What Whisper makes of two sounds, as losses: parts of the codec's training, and of nothing that is used afterwards.

    WhisperLikeness   its features can be told from the codec's coarse levels
    SoundsAlike       its encoder makes the same of a decoded and a recorded sound
    WrittenAlike      its decoder would write down the same; which words of a text it doubts, and when they were said

Shapes: letter legend in vocab.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import Whisper, disable_sdpa
from whisper.timing import dtw_cpu
from whisper.tokenizer import get_tokenizer

from omni_lite.audio import log_mel
from omni_lite.codec import Quantized
from omni_lite.hear import Ears
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FEATURES_PER_SECOND, FRAME_SAMPLES, FRAMES_PER_SECOND, LEVEL_STRIDES

COLUMN_SAMPLES = FRAME_SAMPLES // LEVEL_STRIDES[0]
AFTER = EAR_RATE // 2                        # silence after a sentence that Whisper writes down, to which it is used
SMOOTH = 5                                   # of Whisper's features, over which its attention is averaged


@dataclass(frozen=True)
class HeardWord:
    """A word of a text as Whisper hears it, or the text's end, whose `text` is empty.

    nats:       how much it doubts the word, after those before it
    first, end: the codec's frames in which it looks for the word; not whole numbers
    """

    text: str
    nats: float
    first: float
    end: float


class WhisperLikeness(nn.Module):
    """How well Whisper's features can be told from the codec's coarse levels: a loss of its training only.

    Codes that are chosen for the sound alone say little of the words. Here the first level, and the first two
    together, also have to let a small head tell what Whisper hears. Source: Moshi's Mimi, arXiv 2410.00037,
    section 3.3.2, and SpeechTokenizer, arXiv 2308.16692, which do so with WavLM and HuBERT.
    """

    def __init__(self, width: int, ears: Ears) -> None:
        super().__init__()
        self.ears = [ears]                   # in a list: no part of what is trained and saved
        D = ears.width
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, width, 5, padding=2), nn.GELU(), nn.Conv1d(width, D, 1)) for _ in range(2))

    def forward(self, wav: Tensor, quantized: Quantized) -> Tensor:
        """wav (B, 1, N) at 24 kHz, and what was found in it -> mean squared error; 1 is no better than the mean."""
        heard = self.columns(wav, quantized.latents.shape[-1])                 # (B, D, L)
        coarse = quantized.levels[0]
        both = coarse + quantized.levels[1]
        errors = [(head(x) - heard).square().mean() for head, x in zip(self.heads, (coarse, both), strict=True)]
        return torch.stack(errors).mean()

    @torch.no_grad()
    def columns(self, wav: Tensor, columns: int) -> Tensor:
        """Whisper's features at the middle of each of the codec's columns, each dimension scaled: (B, D, L)"""
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
    """How far apart two sounds are to Whisper's encoder: a loss of the codec's training only.

    Spectra that hardly differ can be different words. What Whisper's encoder makes of both, halfway and at its end,
    is compared too. Source of the idea: deep feature losses, arXiv 1806.10522.
    """

    def __init__(self, ears: Ears, after: int = 0) -> None:
        """after: samples of silence at 16 kHz that follow each sound"""
        super().__init__()
        self.ears, self.after = [ears], after          # in a list: no part of what is trained and saved

    def forward(self, wav: Tensor, wanted: Tensor) -> Tensor:
        """Two sounds (B, 1, N) at 24 kHz -> mean distance of their features; the gradient is of the first alone."""
        with torch.no_grad():
            there = self.seen(wanted)
        return self.apart(self.seen(wav), there)

    def seen(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """What Whisper's encoder makes of it, halfway and at its end: each (B, T, D)"""
        ears = self.ears[0]
        layers = list(ears.layers(log_mel(F.pad(to_ear_rate(wav[:, 0]), (0, self.after)), ears.n_mels)))
        return layers[len(ears.encoder.blocks) // 2 - 1], layers[-1]

    def apart(self, heard: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
        """The distance of what was `seen`, both layers brought to about unit size."""
        shape, size = wanted[0].shape[-1:], self.ears[0].encoder.ln_post.weight.abs().mean()
        halfway = F.l1_loss(F.layer_norm(heard[0], shape), F.layer_norm(wanted[0], shape))
        return halfway + F.l1_loss(heard[1], wanted[1]) / size


class WrittenAlike(nn.Module):
    """How differently Whisper's decoder would write down two sounds: a loss of the codec's training only.

    Most of what sets two sounds apart changes no word, and a little of it, at the right place, changes one. So Whisper
    is asked: it knows the text so far and guesses the next token from one sound and from the other. Its guesses from
    the recording, with all the doubts it has there, are what those from the decoded sound shall be. Source of the idea:
    distillation, arXiv 1503.02531.
    """

    def __init__(self, whisper: Whisper) -> None:
        super().__init__()
        self.whisper = [whisper]             # in a list: no part of what is trained and saved
        self.tokenizer = get_tokenizer(whisper.is_multilingual, language="en", task="transcribe")

    def forward(self, heard: Tensor, wanted: Tensor, texts: Sequence[str]) -> Tensor:
        """Whisper's features (B, T, D) of two sounds of the same B texts -> nats a token, by which they differ (KL).

        The gradient is of the first alone.
        """
        tokens, counted = self.tokens(texts, heard.device)
        decoder = self.whisper[0].decoder
        with torch.no_grad():
            there = decoder(tokens[:, :-1], wanted).log_softmax(-1)
        here = decoder(tokens[:, :-1], heard).log_softmax(-1)
        return F.kl_div(here[counted], there[counted], log_target=True, reduction="sum") / counted.sum()

    def doubts(self, heard: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """How unlikely each token of each text is from what was heard: features (B, T, D) -> nats (B, L), which count.

        L tokens of the longest text and its end; the second (B, L) is True at those that a text has.
        """
        tokens, counted = self.tokens(texts, heard.device)
        there = self.whisper[0].decoder(tokens[:, :-1], heard).float().log_softmax(-1)
        return -there.gather(-1, tokens[:, 1:, None])[..., 0], counted

    @torch.no_grad()
    def words(self, heard: Tensor, texts: Sequence[str], frames: Sequence[int]) -> list[list[HeardWord]]:
        """The words of B texts and their ends, how much each is doubted, and where its sound is.

        Where Whisper's decoder looks while it guesses a token is where it hears it; the likeliest way through all of
        them in order is found by dynamic time warping. Source: openai-whisper, whisper/timing.py::find_alignment

        heard: features (B, T, D);  frames: how many of the codec's each sound has
        """
        decoder, looks = self.whisper[0].decoder, []
        hooks = [block.cross_attn.register_forward_hook(lambda _, __, out: looks.append(out[1]))
                 for block in decoder.blocks]
        try:
            with disable_sdpa():                                               # which tells nothing of where it looks
                nats, counted = self.doubts(heard, texts)
        finally:
            for hook in hooks:
                hook.remove()
        heads = self.whisper[0].alignment_heads.to_dense().nonzero().tolist()
        look = torch.stack([looks[layer][:, head] for layer, head in heads])   # (H, B, L, T)
        start = len(self.tokenizer.sot_sequence_including_notimestamps) - 1
        found = []
        for b, (text, n) in enumerate(zip(texts, frames, strict=True)):
            ids = [*self.tokenizer.encode(" " + text.strip()), self.tokenizer.eot]
            inside = look[:, b, : start + len(ids), : 1 + int(n / FRAMES_PER_SECOND * FEATURES_PER_SECOND)]
            starts = starts_of(inside.float(), start) / FEATURES_PER_SECOND * FRAMES_PER_SECOND
            found.append(self.in_words(ids, nats[b][counted[b]].tolist(), [*starts.tolist()[: len(ids)], float(n)]))
        return found

    def in_words(self, ids: list[int], nats: Sequence[float], starts: Sequence[float]) -> list[HeardWord]:
        """Tokens put together to words, without what has no letter or digit; `starts` has the end of all as well."""
        words, k = [], 0
        for text, tokens in zip(*self.tokenizer.split_to_word_tokens(ids), strict=True):
            first, k = k, k + len(tokens)
            ends = tokens == [self.tokenizer.eot]
            if ends or any(letter.isalnum() for letter in text):
                words.append(HeardWord("" if ends else text.strip(), sum(nats[first:k]),
                                       starts[first] if first else 0.0, starts[k]))
        return words

    def tokens(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """What Whisper reads and writes: tokens (B, L), and (B, L - 1), which of its guesses are of the text or end it.
        """
        start, end = list(self.tokenizer.sot_sequence_including_notimestamps), self.tokenizer.eot
        rows = [[*start, *self.tokenizer.encode(" " + text.strip()), end] for text in texts]
        tokens = torch.full((len(rows), max(map(len, rows))), end)
        for to, row in zip(tokens, rows, strict=True):
            to[: len(row)] = torch.tensor(row)
        lengths = torch.tensor([[len(row)] for row in rows])
        guess = torch.arange(tokens.shape[1] - 1)
        return tokens.to(device), ((guess >= len(start) - 1) & (guess < lengths - 1)).to(device)


def starts_of(look: Tensor, skip: int) -> np.ndarray:
    """Where each token after the first `skip` begins, in features: logits of attention (H, L, T) -> (L - skip,)"""
    likely = look.softmax(-1)
    deviation, mean = torch.std_mean(likely, dim=-2, keepdim=True, unbiased=False)
    likely = F.avg_pool1d((likely - mean) / deviation.clamp(min=1e-6), SMOOTH, 1, SMOOTH // 2)
    tokens, features = dtw_cpu(-likely.mean(0)[skip:].double().cpu().numpy())
    return np.array([features[tokens == k].min() for k in range(look.shape[1] - skip)], dtype=float)


def to_ear_rate(wav: Tensor) -> Tensor:
    """(B, N) at 24 kHz, N a multiple of six -> (B, N * 2 / 3) at 16 kHz; gradients pass. The spectrum is cut off."""
    fewer = wav.shape[-1] * EAR_RATE // CODEC_RATE
    return torch.fft.irfft(torch.fft.rfft(wav.float())[..., : fewer // 2 + 1], n=fewer) * (EAR_RATE / CODEC_RATE)
