"""Augmentation of questions: speed, room, band limits, noise, clipping, gain."""

from collections.abc import Sequence

import numpy as np
import scipy.signal

from omni_lite.vocab import EAR_RATE


def augment(wav_16k: np.ndarray, rng: np.random.Generator, others: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Simulate another speaker, room and microphone.

    wav_16k: (N,) float32;  others: speech for babble noise
    returns: (N',) float32; speed 0.85 to 1.18 (this shifts pitch and formants), reverberation, band limits, noise at
             3 to 30 dB SNR and clipping, each with its own probability, and a random gain
    """
    x = np.asarray(wav_16k, np.float32)
    if rng.random() < 0.7:
        speed = rng.uniform(0.85, 1.18)
        x = scipy.signal.resample_poly(x, 100, round(100 * speed)).astype(np.float32)
    pad = [int(rng.uniform(0, 0.35) * EAR_RATE), int(rng.uniform(0, 0.4) * EAR_RATE)]
    x = np.pad(x, pad)
    if rng.random() < 0.5:
        x = in_room(x, rng)
    if rng.random() < 0.4:
        x = band_limited(x, rng)
    if rng.random() < 0.6:
        level = rms(x) * 10 ** (-rng.uniform(3, 30) / 20)
        x = (x + level * noise(len(x), rng, others)).astype(np.float32)
    if rng.random() < 0.15:
        limit = np.abs(x).max() * rng.uniform(0.3, 0.9)
        x = x.clip(-limit, limit)
    peak = max(float(np.abs(x).max()), 1e-6)
    return (x / peak * 10 ** rng.uniform(-1.5, -0.02)).astype(np.float32)


def rms(x: np.ndarray) -> float:
    """Root mean square of the louder part; pauses do not count."""
    loud = x[np.abs(x) > 0.05 * np.abs(x).max()] if len(x) else x
    return float(np.sqrt(np.mean(loud**2))) if len(loud) else 0.0


def in_room(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reverberation: the direct sound, then noise that decays by 60 dB in 0.1 to 0.6 s."""
    decay_s = rng.uniform(0.1, 0.6)
    t = np.arange(int(decay_s * EAR_RATE)) / EAR_RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)
    tail *= rng.uniform(0.1, 0.7) / np.sqrt((tail**2).sum())
    tail[: int(0.002 * EAR_RATE)] = 0
    tail[0] = 1.0
    return scipy.signal.fftconvolve(x, tail)[: len(x) + int(0.1 * EAR_RATE)].astype(np.float32)


def band_limited(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Band-pass filter, as of a telephone or a cheap microphone."""
    low, high = rng.uniform(50, 350), rng.uniform(2500, 7500)
    sos = scipy.signal.butter(int(rng.integers(1, 5)), (low, high), "bandpass", fs=EAR_RATE, output="sos")
    return scipy.signal.sosfilt(sos, x).astype(np.float32)


def noise(length: int, rng: np.random.Generator, others: Sequence[np.ndarray]) -> np.ndarray:
    """White to brown noise, hum, or babble of the `others`; of rms 1."""
    kind = rng.random()
    if kind < 0.25 and others:
        out = np.zeros(length)
        for _ in range(int(rng.integers(1, 4))):
            voice = others[int(rng.integers(len(others)))]
            out += np.resize(np.roll(voice, int(rng.integers(len(voice)))), length)
    else:
        spectrum = rng.standard_normal(length // 2 + 1) + 1j * rng.standard_normal(length // 2 + 1)
        spectrum *= np.maximum(np.arange(length // 2 + 1), 1.0) ** -rng.uniform(0, 1.2)
        out = np.fft.irfft(spectrum, length)[:length]
        if kind > 0.9:
            out = out / np.std(out) + 2 * np.sin(2 * np.pi * rng.choice([50, 60, 120]) * np.arange(length) / EAR_RATE)
    return (out / max(1e-6, float(np.std(out)))).astype(np.float32)
