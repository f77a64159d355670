"""Augmentation: sound, seeded and varied."""

import numpy as np

from omni_lite.recipes.augment import augment


def test_augmentation_is_sound_seeded_and_varied():
    t = np.arange(16_000) / 16_000
    wave = (0.5 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)
    seen = []
    for seed in range(30):
        x = augment(wave, np.random.default_rng(seed), [wave])
        assert x.dtype == np.float32 and np.isfinite(x).all() and 0 < np.abs(x).max() <= 1
        assert 0.8 * 16_000 < len(x) < 2.2 * 16_000
        assert np.array_equal(x, augment(wave, np.random.default_rng(seed), [wave]))
        seen.append(len(x))
    assert len(set(seen)) > 15
