"""Speech is found in every voice, no noise passes for speech, and only silence is cut."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from omni_lite.data import read_rows
from omni_lite.recording import load_audio
from omni_lite.recording.speech import detector, only_speech, speech_probability, speech_segments

ROOT = Path(__file__).parents[1]
RATE = 16_000
Noise = Callable[[np.random.Generator, np.ndarray], np.ndarray]


# --- noises: of a generator and the time of each sample in seconds ---------------------------------------
def white(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    return rng.standard_normal(len(t))


def coloured(rng: np.random.Generator, t: np.ndarray, power: float) -> np.ndarray:
    """Noise whose power falls with frequency: 1 is pink, 2 is brown."""
    spectrum = np.fft.rfft(white(rng, t))
    spectrum *= np.arange(1, len(spectrum) + 1) ** (-power / 2)
    noise = np.fft.irfft(spectrum, len(t))
    return (noise - noise.mean()) / noise.std()


def band(wave: np.ndarray, low: float, high: float) -> np.ndarray:
    return scipy.signal.sosfilt(scipy.signal.butter(4, [low, high], "bandpass", fs=RATE, output="sos"), wave)


def hits(rng: np.random.Generator, t: np.ndarray, per_second: float, low: float, high: float, ms: float) -> np.ndarray:
    """Bursts of noise at random times, each dying away in `ms`."""
    wave = np.zeros(len(t))
    for start in rng.integers(0, len(t), int(per_second * t[-1])):
        decay = np.exp(-np.arange(int(0.006 * ms * RATE)) / (ms * RATE / 1000))
        burst = (rng.uniform(0.2, 1) * decay * rng.standard_normal(len(decay)))[: len(t) - start]
        wave[start : start + len(burst)] += burst
    return band(wave, low, high)


def sine(t: np.ndarray, hz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * t)


def notes(rng: np.random.Generator, t: np.ndarray, seconds: float, chord: tuple[int, ...]) -> np.ndarray:
    """A melody of struck notes with six harmonics; `chord`: semitones that sound together."""
    wave = np.zeros(len(t))
    for start in np.arange(0, t[-1], seconds):
        now = (t >= start) & (t < start + seconds)
        base = 150 * 2 ** (rng.integers(0, 18) / 12)
        for semitone in chord:
            tone = sum(sine(t[now], k * base * 2 ** (semitone / 12)) / k for k in range(1, 7))
            wave[now] += tone * np.exp(-3 * (t[now] - start) / seconds)
    return wave


NOISES: dict[str, Noise] = {
    "room noise": lambda rng, t: 0.006 * white(rng, t),
    "hum of 50 Hz": lambda rng, t: 0.1 * sine(t, 50),
    "mains buzz": lambda rng, t: 0.1 * sum(sine(t + rng.uniform(0, 1), 100 * k) / k for k in range(1, 30)),
    "clicks": lambda rng, t: hits(rng, t, 4, 100, 7000, 0.3),
    "typing": lambda rng, t: 0.5 * hits(rng, t, 6, 800, 6000, 5) + 0.001 * white(rng, t),
    "thumps": lambda rng, t: hits(rng, t, 2, 40, 90, 40),
    "claps": lambda rng, t: 0.5 * hits(rng, t, 3, 500, 7500, 12),
    "white noise": lambda rng, t: 0.1 * white(rng, t),
    "pink noise": lambda rng, t: 0.05 * coloured(rng, t, 1),
    "brown noise": lambda rng, t: 0.05 * coloured(rng, t, 2),
    "rain": lambda rng, t: 0.2 * hits(rng, t, 300, 1000, 7500, 1.5) + 0.01 * white(rng, t),
    "wind": lambda rng, t: 0.1 * coloured(rng, t, 2) * (1 + 0.8 * sine(t, 0.4)),
    "a fan": lambda rng, t: 0.03 * band(coloured(rng, t, 1), 40, 2000) * (1 + 0.3 * sine(t, 13)) + 0.01 * sine(t, 120),
    "an engine": lambda rng, t: 0.1 * sum(sine(t + 0.004 * sine(t, 0.7), 43 * k) / k for k in range(1, 20)),
    "a constant": lambda rng, t: 0.2 + 0.0005 * white(rng, t),
    "beeps": lambda rng, t: 0.3 * sine(t, rng.uniform(600, 2500)) * (t * rng.uniform(1, 4) % 1 < 0.4),
    "a ringing tone": lambda rng, t: 0.2 * (sine(t, 440) + sine(t, 480)) * (t % 3 < 2),
    "a sweep": lambda rng, t: 0.2 * np.sin(2 * np.pi * (100 * t + 3450 / t[-1] * t**2)),
    "a siren": lambda rng, t: 0.2 * np.sin(2 * np.pi * 900 * t + 130 * sine(t, 0.5)),
    "a chord": lambda rng, t: 0.1 * (sine(t, 220) + sine(t, 277.2) + sine(t, 329.6)),
    "a melody": lambda rng, t: 0.1 * notes(rng, t, 0.3, (0,)),
    "chords": lambda rng, t: 0.1 * notes(rng, t, 0.6, (0, 4, 7)),
}


def noise(kind: str, seed: int, seconds: float) -> Tensor:
    wave = NOISES[kind](np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE)
    return torch.from_numpy(np.asarray(wave, np.float32))


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_not_speech(kind: str) -> None:
    for seed, seconds in enumerate([1.3, 3, 6]):
        wave = noise(kind, seed, seconds)
        for level in (1.0, 0.03):
            with pytest.raises(ValueError, match=r"^hum\.wav holds no speech: speak closer to the microphone"):
                only_speech(level * wave, "hum.wav")


# --- speech ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def question() -> Tensor:
    return load_audio(ROOT / "data" / "audio" / "question.wav")


@pytest.fixture(scope="module")
def voices(question: Tensor) -> dict[str, Tensor]:
    """One committed clip of each voice, and the recordings of data/audio."""
    names = ("dev_both", "dev_facts", "dev_phrasings", "test_both", "test_facts", "test_phrasings")
    rows = read_rows([ROOT / "data" / "subset" / f"{name}.parquet" for name in names])
    found = {row.voice: row.question_wav for row in rows if row.question_wav is not None}
    found |= {path.name: load_audio(path) for path in (ROOT / "data" / "audio").glob("*.wav")}
    assert len(found) > 40 and {name.split(":")[0] for name in found} >= {"espeak", "flite", "kokoro", "pico", "piper"}
    return found


def in_noise(wave: Tensor, noise: np.ndarray, snr_db: float = 10) -> Tensor:
    """Add noise that is `snr_db` weaker than the speech; pauses do not count as speech."""
    power = wave[: len(wave) // 320 * 320].view(-1, 320).square().mean(dim=1)
    speech = power[power > 0.01 * power.max()].mean().sqrt()
    return wave + torch.from_numpy(noise.astype(np.float32)) * speech * 10 ** (-snr_db / 20)


def seconds_of(wave: Tensor) -> np.ndarray:
    return np.arange(len(wave)) / RATE


CONDITIONS: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "as it is": lambda wave, rng: wave,
    "at -40 dB": lambda wave, rng: wave * 0.01 / wave.abs().max(),
    "over a constant": lambda wave, rng: 0.1 * wave + 0.5,
    "by telephone": lambda wave, rng: torch.from_numpy(band(wave.numpy(), 300, 3400)).float(),
    "in white noise": lambda wave, rng: in_noise(wave, white(rng, seconds_of(wave))),
    "in pink noise": lambda wave, rng: in_noise(wave, coloured(rng, seconds_of(wave), 1)),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_voice_is_speech(voices: dict[str, Tensor], condition: str) -> None:
    rng = np.random.default_rng(0)
    missed = [name for name, wave in voices.items() if not speech_segments(CONDITIONS[condition](wave, rng))]
    assert not missed, f"{len(missed)} of {len(voices)}"


def test_recordings_without_long_silence_stay_bit_identical(voices: dict[str, Tensor]) -> None:
    changed = [name for name, wave in voices.items() if not torch.equal(only_speech(wave, name), wave)]
    assert not changed


@pytest.mark.parametrize("level", [0.0, 0.001])
@pytest.mark.parametrize(("before", "after"), [(12, 0), (0, 29), (12, 29), (1, 2)])
def test_long_silence_is_cut(question: Tensor, before: int, after: int, level: float) -> None:
    """What is left is the question, with at most 0.15 s more or less on either side."""
    padded = torch.cat([torch.zeros(before * RATE), question, torch.zeros(after * RATE)])
    padded += level * torch.randn(len(padded), generator=torch.Generator().manual_seed(0))
    left = only_speech(padded, "question.wav")
    assert abs(len(left) - len(question)) < 0.2 * RATE
    starts = [i for i in range(0, len(padded), 64) if torch.equal(padded[i : i + len(left)], left)]
    assert any(abs(start - before * RATE) < 0.15 * RATE for start in starts)
    assert torch.equal(only_speech(left, "question.wav"), left)


def test_a_pause_between_words_is_kept(question: Tensor) -> None:
    wave = torch.cat([question, torch.zeros(4 * RATE), question])
    assert torch.equal(only_speech(wave, "two questions"), wave)
    (first, end), (again, last) = speech_segments(wave)
    assert 0.2 < first / RATE < 0.5 and 1.2 < end / RATE < 1.7
    assert (again - first, last - end) == pytest.approx((len(question) + 4 * RATE,) * 2, abs=1024)


def test_a_click_does_not_drown_a_quiet_voice(question: Tensor) -> None:
    wave = torch.cat([torch.zeros(RATE), 0.02 * question])
    wave[2000:2040] = 0.9
    first, end = speech_segments(wave)[0]
    assert 1.2 < first / RATE < 1.6 and end - first > RATE // 2


@pytest.mark.parametrize("samples", [0, 1, 100, 511, 513, 3200])
def test_a_recording_may_be_short(samples: int) -> None:
    assert speech_segments(torch.zeros(samples)) == []
    with pytest.raises(ValueError, match="holds no speech"):
        only_speech(0.1 * torch.ones(samples), "short.wav")


# --- the network -----------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")        # torch.jit is deprecated
def test_the_network_is_silero_vad(question: Tensor) -> None:
    spec = find_spec("silero_vad")
    assert spec is not None and spec.submodule_search_locations
    theirs = torch.jit.load(Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.jit")
    with torch.no_grad():
        expected = theirs.audio_forward(question[None], RATE)[0]
        torch.testing.assert_close(detector()(question), expected, atol=1e-5, rtol=0)


def test_the_detector_serves_inference_and_training(question: Tensor) -> None:
    detector.cache_clear()
    with torch.inference_mode():
        heard = speech_probability(question).clone()
    learnable = question.clone().requires_grad_()
    assert torch.equal(speech_probability(learnable), heard)
    only_speech(learnable, "question.wav").sum().backward()
    assert learnable.grad is not None and learnable.grad.min() == 1


def test_the_detector_leaves_the_threads_of_torch_alone() -> None:
    threads = torch.get_num_threads()
    detector.cache_clear()
    detector()
    assert torch.get_num_threads() == threads and "silero_vad" not in sys.modules
