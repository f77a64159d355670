"""A tiny model, its corpus and its phases, for the tests of training."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from omni_lite.config import LITE, EarConfig
from omni_lite.data import FeatureStore, store_features
from omni_lite.recipes.lite.items import Corpus
from omni_lite.recipes.lite.phases import LITE_PHASES, LitePhase
from omni_lite.vocab import Vocab

VOCAB = Vocab(text_base=40, codebook=16)
TINY = replace(
    LITE,
    vocab=VOCAB,
    ear=EarConfig(whisper="tiny.en", width=8, stack=2, adapter="mlp", hidden=16),
    trunk=LITE.trunk | dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2),
    tts_blocks=1,
)


class Letters:
    """Stands for a tokenizer: token i has 1 + i % 3 letters."""

    def id_to_token(self, i: int) -> str:
        return "abc"[: 1 + i % 3]

    def get_vocab_size(self) -> int:
        return 40


def small_corpus(folder: Path) -> Corpus:
    """Three spoken questions with three spoken answers; their features are in `folder`."""
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(1, n, 8, generator=generator) for n in (6, 9, 12)]
    store_features(folder / "f.f16", ((clip, torch.tensor([clip.shape[1]])) for clip in clips))
    texts = [((1, 2), (3, 4)), ((5, 6, 7), (8,)), ((9,), (10, 11, 12))]
    codes = [torch.randint(0, 16, (7, n), generator=generator) for n in (2, 3, 4)]
    spoken = [(q, a, c) for (q, a), c in zip(texts, codes, strict=True)]
    heard = [(clip, *three) for clip, three in enumerate(spoken)]
    said = [(clip, q) for clip, q, _, _ in heard]
    return Corpus(Letters(), texts, [q for q, _ in texts], said, heard, spoken, FeatureStore(folder / "f.f16", 8))


def short(name: str, steps: int = 6, **changes) -> LitePhase:
    """A lite phase with few steps and small batches."""
    phase = next(phase for phase in LITE_PHASES if phase.name == name)
    return replace(phase, steps=steps, batch_positions=200, **changes)


def sound(seed: int, seconds: float, rate: int) -> bytes:
    """Noise as the bytes of a FLAC file."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate)) * 0.1
    soundfile.write(buffer, noise, rate, format="FLAC")
    return buffer.getvalue()
