"""The model's input side: a frozen Whisper encoder, then the trained ASR adapter.

    wav 16 kHz -> log-mel, 100 columns/s -> Whisper encoder, 50 features/s -> adapter, 50 / stack
    positions/s of the language model's width

Whisper itself always takes 30 s: 1500 features, most of them silence. Here the window ends 0.2 s after
the question, so 2 s of speech cost 110 features instead of 1500. The released Mini-Omni was trained on
features of the whole window, cut to the question afterwards, so `whole_window` repeats that.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import AudioEncoder, ResidualAttentionBlock

from omni_lite.audio import log_mel
from omni_lite.config import EarConfig
from omni_lite.convnext import KERNEL, ConvNeXtBlock
from omni_lite.precision import mixed_precision
from omni_lite.vocab import EAR_HOP, EAR_RATE, FEATURE_SAMPLES, MAX_QUESTION_SECONDS

TAIL_SAMPLES = EAR_RATE // 5                 # 0.2 s of silence after the question
MAX_SAMPLES = MAX_QUESTION_SECONDS * EAR_RATE
BATCH_FEATURES = 1024                        # features in one batch of the encoder: 9 questions of 2 s


def num_columns(num_samples: int) -> int:
    """Log-mel columns (10 ms each) of a question and 0.2 s of silence, 30 s at most."""
    return min(num_samples + TAIL_SAMPLES, MAX_SAMPLES) // EAR_HOP


def num_features(num_samples: int) -> int:
    """T of a question: the encoder's second convolution halves the columns, rounding up.

    1 s = 16,000 samples -> 120 columns -> 60 features
    """
    return math.ceil(num_columns(num_samples) / 2)


def num_whole_features(num_samples: int) -> int:
    """T of a question among the whole window's 1500 features, as the release counts them.

    1 s = 16,000 samples -> 51 features. The release divides floats: for nine lengths below 30 s
    the result is one less than with integers.

    Source: gpt-omni/mini-omni inference.py::load_audio
    """
    return min(int(num_samples / EAR_RATE * 1000 / 20) + 1, MAX_SAMPLES // FEATURE_SAMPLES)


class Ears(nn.Module):
    """Whisper's encoder, frozen: it never gets a gradient, and stays in eval mode.

    whole_window: see `EarConfig`
    """

    def __init__(self, encoder: AudioEncoder, whole_window: bool = False) -> None:
        super().__init__()
        self.whole_window = whole_window
        self.encoder = encoder.requires_grad_(False)
        self.n_mels = encoder.conv1.in_channels
        self.width = encoder.conv1.out_channels
        self.train(False)

    def train(self, mode: bool = True) -> "Ears":
        """Stay in eval mode, whatever the model around it does."""
        return super().train(False)

    def num_features(self, num_samples: int) -> int:
        """T of a question of N samples."""
        return num_whole_features(num_samples) if self.whole_window else num_features(num_samples)

    def hear(self, wav_16k: Tensor, bf16: bool = False) -> Tensor:
        """Encoder features of one question: (N,) float32 at 16 kHz -> (1, T, D) float32; bf16 as in `features`."""
        return self.features([wav_16k], bf16)[0]

    def mel(self, wav_16k: Tensor) -> Tensor:
        """(N,) -> (n_mels, C): log-mel of the question and 0.2 s of silence, or of the whole 30 s."""
        if len(wav_16k) > MAX_SAMPLES:
            raise ValueError(
                f"A question of {len(wav_16k) / EAR_RATE:.1f} s is too long: "
                f"cut it to {MAX_QUESTION_SECONDS} s, where Whisper's positions end."
            )
        silence = MAX_SAMPLES - len(wav_16k)
        return log_mel(wav_16k, self.n_mels, padding=silence if self.whole_window else min(TAIL_SAMPLES, silence))

    @torch.no_grad()
    def forward(self, mel: Tensor, columns: Tensor | None = None) -> Tensor:
        """Whisper's encoder on C columns, at most its own 3000.

        mel:     (B, n_mels, C), zeros after each question's own columns
        columns: (B,) int64, columns of each question; None if all have C
        returns: (B, T, D), T = ceil(C / 2), zeros after each question's own features

        Padding is masked wherever the encoder would see it, so a question's features do not depend on
        the other questions of the batch.
        """
        return deque(self.layers(mel, columns), maxlen=1).pop()              # keeps only the last one

    def layers(self, mel: Tensor, columns: Tensor | None = None) -> Iterator[Tensor]:
        """The output of every encoder block, then the features; as `forward`, but gradients pass.

        Each is (B, T, D); only the last has zeros after a question's end.

        Source: openai/whisper whisper/model.py::AudioEncoder.forward, which accepts T = 1500 alone
        """
        C = mel.shape[-1]
        encoder = self.encoder
        x = F.gelu(encoder.conv1(mel))                                     # (B, D, C)
        mask = None
        if columns is not None:
            inside = torch.arange(C, device=mel.device) < columns[:, None]  # (B, C)
            x = x * inside[:, None]                                        # conv2 would see the padding
            mask = inside[:, ::2]                                          # (B, T)
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)                       # (B, T, D)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = _encoder_block(block, x, mask)
            yield x
        x = encoder.ln_post(x)
        yield x if mask is None else x * mask[:, :, None]

    @torch.no_grad()
    def features(self, waves: Sequence[Tensor], bf16: bool = False) -> tuple[Tensor, Tensor]:
        """Encoder features of many questions, in batches of similar length.

        waves:   each (N,) float32 at 16 kHz
        bf16:    compute in bfloat16 where that is faster
        returns: features (B, T, D) float32, zeros after each question's end; lengths (B,)
        """
        device = self.encoder.conv1.weight.device
        lengths = torch.tensor([self.num_features(len(wave)) for wave in waves], dtype=torch.int64)
        out = torch.zeros(len(waves), max(lengths.tolist(), default=0), self.width, device=device)
        order = lengths.argsort().tolist()
        while order:
            longest = int(lengths[order[-1]])
            size = 1 if self.whole_window else max(1, BATCH_FEATURES // longest)
            order, chosen = order[:-size], order[-size:]
            mels = [self.mel(torch.as_tensor(waves[i], dtype=torch.float32, device=device)) for i in chosen]
            columns = [mel.shape[1] for mel in mels]
            C = max(columns)
            mel = torch.stack([F.pad(mel, (0, C - mel.shape[1])) for mel in mels])
            ragged = None if min(columns) == C else torch.tensor(columns, device=device)
            with mixed_precision(device.type, wanted=bf16):
                x = self(mel, ragged)
            out[torch.tensor(chosen, device=device), :longest] = x[:, :longest].float()
        return out, lengths.to(device)


def _encoder_block(block: ResidualAttentionBlock, x: Tensor, mask: Tensor | None) -> Tensor:
    """One transformer block of Whisper; its own forward takes no padding mask.

    x: (B, T, D);  mask: (B, T) bool, False for padding
    """
    B, T, D = x.shape
    attention = block.attn
    y = block.attn_ln(x)
    q, k, v = (
        linear(y).view(B, T, attention.n_head, -1).transpose(1, 2)         # (B, heads, T, D / heads)
        for linear in (attention.query, attention.key, attention.value)
    )
    keys = None if mask is None else mask[:, None, None, :]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
    x = x + attention.out(y.transpose(1, 2).reshape(B, T, D))
    return x + block.mlp(block.mlp_ln(x))


class ASRAdapter(nn.Module):
    """Encoder features to positions of the language model.

    `stack` neighbouring features become one position: 50 a second -> 12.5 with stack 4. Then
        "mlp"     LayerNorm - Linear - GELU - Linear
        "conv"    "mlp", then ConvNeXt blocks: in each, a position sees three before it and three after it.
                  The lite preset has it, the paper does not
        "swiglu"  proj(silu(fc_1(x)) * fc_2(x)), the release's `whisperMLP`, without biases
        "linear"  one Linear, the release's other choice

    Source: gpt-omni/mini-omni litgpt/model.py::whisperMLP
    """

    def __init__(self, config: EarConfig, width: int) -> None:
        super().__init__()
        self.stack = config.stack
        self.kind = config.adapter
        stacked, hidden = config.stack * config.width, config.hidden
        if self.kind in ("mlp", "conv"):
            self.norm_in = nn.LayerNorm(stacked)
            self.fc = nn.Linear(stacked, hidden)
            self.proj = nn.Linear(hidden, width)
            # The blocks start near the identity, so "conv" starts as "mlp".
            self.blocks = nn.ModuleList(ConvNeXtBlock(width, lookahead=KERNEL // 2, scale=0.01)
                                        for _ in range(config.blocks if self.kind == "conv" else 0))
        elif self.kind == "swiglu":
            self.fc_1 = nn.Linear(stacked, hidden, bias=False)
            self.fc_2 = nn.Linear(stacked, hidden, bias=False)
            self.proj = nn.Linear(hidden, width, bias=False)
        elif self.kind == "linear":
            self.proj = nn.Linear(stacked, width)
        else:
            raise ValueError(f'There is no adapter {self.kind!r}: choose "mlp", "conv", "swiglu" or "linear".')

    def num_positions(self, num_features: int) -> int:
        """Positions of the language model for T features."""
        return math.ceil(num_features / self.stack)

    def forward(self, features: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, T, D_whisper) -> (B, ceil(T / stack), D); zeros fill the last group.

        positions: (B,) positions of each clip, so that the blocks mask its padding; None: all
        """
        B, T, D = features.shape
        S = self.num_positions(T)
        x = F.pad(features, (0, 0, 0, S * self.stack - T)).reshape(B, S, self.stack * D)
        if self.kind in ("mlp", "conv"):
            x = self.proj(F.gelu(self.fc(self.norm_in(x))))
            inside = None if positions is None else (torch.arange(S, device=x.device) < positions[:, None])[..., None]
            for block in self.blocks:
                x = block(x if inside is None else x * inside)
            return x
        if self.kind == "swiglu":
            return self.proj(F.silu(self.fc_1(x)) * self.fc_2(x))
        return self.proj(x)
