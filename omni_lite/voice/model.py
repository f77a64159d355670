"""The voice: phonemes around a pointer and the past codes in, the next seven codes and the pointer's advance out.

Mini-Omni's streams without its language model. Stream i lags i steps behind the pointer, and all seven codes of a step
are predicted together. The alignment is given in training, so words cannot be skipped or repeated: the pointer only
moves forward.

Letters, besides those of `vocab.py`:  P phonemes   W steps that a step attends to   A classes of advance

Sources: Mini-Omni (arXiv 2408.16725) for the delayed streams; LLMVoX (arXiv 2503.04724) for a voice that reads any
LLM's words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_lite.convnext import ConvNeXtBlock
from omni_lite.vocab import NUM_STREAMS

PHONEMES_BEFORE, PHONEMES_AFTER = 1, 2       # of the pointer, read at each step
LOOKAHEAD = 2                                # phonemes that each text block looks ahead
ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class VoiceConfig:
    """Sizes of a `Voice`.

    phonemes: the alphabet; id i + 1 is character i.
    window:   steps that a step attends to.
    advances: classes of the advance, from 0
    stays:    steps at one phoneme that differ for the model
    """

    phonemes: str
    codebook: int = 1024
    width: int = 384
    blocks: int = 6
    heads: int = 6
    hidden: int = 1024
    text_width: int = 192
    text_blocks: int = 3
    window: int = 128
    advances: int = 12
    stays: int = 16
    dropout: float = 0.1

    @property
    def lookahead(self) -> int:
        """How many phonemes after the pointer must be known, or be the sentence's last."""
        return self.text_blocks * LOOKAHEAD + PHONEMES_AFTER


class TextEncoder(nn.Module):
    """Phonemes in their surroundings: (B, P) ids -> (B, P, D_text); padding stays zero.

    Sentences that stand in one row with `lookahead` zeros between them do not see each other.
    """

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(config.phonemes) + 1, config.text_width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(config.text_width, LOOKAHEAD, 1 / config.text_blocks)
                                    for _ in range(config.text_blocks))

    def forward(self, ids: Tensor) -> Tensor:
        known = (ids > 0).unsqueeze(-1)
        x = self.embed(ids) * known
        for block in self.blocks:
            x = block(x) * known
        return x


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: (B, H, S, d) with cos, sin (S, d / 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Block(nn.Module):
    """A transformer block that attends to the last `window` steps."""

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        D = config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.norm_1, self.norm_2 = nn.RMSNorm(D), nn.RMSNorm(D)
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)
        self.gate_up = nn.Linear(D, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, D, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None,
                cache: tuple[Tensor, Tensor] | None = None, keep: int = 0) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x: (B, S, D);  mask: (S, S), True where a step attends;  cache: keys and values before x, `keep` are kept."""
        B, S, D = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(B, S, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(B, S, D)), self.dropout, self.training)
        gate, up = self.gate_up(self.norm_2(x)).chunk(2, dim=-1)
        x = x + F.dropout(self.down(F.silu(gate) * up), self.dropout, self.training)
        return x, (k[:, :, -keep:], v[:, :, -keep:]) if keep else (k, v)


@dataclass
class VoiceCache:
    """What one answer remembers: keys and values of each block, and the number of steps so far."""

    blocks: list[tuple[Tensor, Tensor]] | None = None
    steps: int = 0


class Voice(nn.Module):
    """Predicts, at each step, the codes of seven delayed streams and how far the pointer advances."""

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        self.config = config
        D, K = config.width, config.codebook
        self.text = TextEncoder(config)
        self.around = nn.Linear((PHONEMES_BEFORE + 1 + PHONEMES_AFTER) * config.text_width, D, bias=False)
        self.stay = nn.Embedding(config.stays, D)
        self.codes = nn.Embedding(NUM_STREAMS * (K + 1), D)    # stream i: id i * (K + 1) + code; K is `silence`
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.RMSNorm(D)
        self.heads = nn.Linear(D, NUM_STREAMS * K)
        self.advance = nn.Linear(D, config.advances)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.stay.weight, std=0.02)
        nn.init.normal_(self.text.embed.weight)

    @property
    def silence(self) -> int:
        """The code id that stands before a stream has begun."""
        return self.config.codebook

    def embed(self, around: Tensor, stay: Tensor, past: Tensor) -> Tensor:
        """One input vector a step.

        around: (B, S, 4 * D_text), see `surroundings`
        stay:   (B, S) steps for which the pointer has not moved
        past:   (B, 7, S) codes of the step before, or `silence`
        """
        offsets = torch.arange(NUM_STREAMS, device=past.device)[:, None] * (self.config.codebook + 1)
        return self.around(around) + self.stay(stay) + self.codes(past + offsets).sum(1)

    def surroundings(self, text: Tensor, pointer: Tensor) -> Tensor:
        """The text vectors around each pointer: (B, P, D_text), (B, S) -> (B, S, 4 * D_text)."""
        padded = F.pad(text, (0, 0, PHONEMES_BEFORE, PHONEMES_AFTER))
        width = PHONEMES_BEFORE + 1 + PHONEMES_AFTER
        windows = padded.unfold(1, width, 1).transpose(2, 3).flatten(2)      # (B, P, 4 * D_text)
        return windows.gather(1, pointer[..., None].expand(-1, -1, windows.shape[-1]))

    def angles(self, first: int, steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of rotary positions: (steps, d / 2) each."""
        half = self.config.width // self.config.heads // 2
        speed = ROPE_BASE ** (-torch.arange(half, device=like.device) / half)
        angle = torch.arange(first, first + steps, device=like.device)[:, None] * speed
        return angle.cos().to(like.dtype), angle.sin().to(like.dtype)

    def forward(self, ids: Tensor, pointer: Tensor, stay: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """All steps at once, for training.

        ids: (B, P) phonemes, 0 between sentences;  pointer, stay: (B, S);  past: (B, 7, S)
        returns: logits of the codes (B, 7, S, K) and of the advance (B, S, A)
        """
        x = self.embed(self.surroundings(self.text(ids), pointer), stay, past)
        S = x.shape[1]
        cos, sin = self.angles(0, S, x)
        ago = torch.arange(S, device=x.device)[:, None] - torch.arange(S, device=x.device)
        mask = (ago >= 0) & (ago < self.config.window)
        for block in self.blocks:
            x, _ = block(x, cos, sin, mask)
        return self._outputs(x)

    def step(self, around: Tensor, stay: Tensor, past: Tensor, cache: VoiceCache) -> tuple[Tensor, Tensor]:
        """One step with a cache, which is extended in place: (B, 1, ...) in, (B, 7, K) and (B, A) out."""
        x = self.embed(around, stay, past)
        cos, sin = self.angles(cache.steps, 1, x)
        before: Sequence[tuple[Tensor, Tensor] | None] = cache.blocks or [None] * len(self.blocks)
        cache.blocks = []
        for block, old in zip(self.blocks, before, strict=True):
            x, kept = block(x, cos, sin, None, old, keep=self.config.window - 1)
            cache.blocks.append(kept)
        cache.steps += 1
        codes, advance = self._outputs(x)
        return codes[:, :, 0], advance[:, 0]

    def _outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        codes = self.heads(x).unflatten(-1, (NUM_STREAMS, self.config.codebook)).transpose(1, 2)
        return codes, self.advance(x)
