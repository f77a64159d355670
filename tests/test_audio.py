"""Sound in and out: what is read is what was written, and every bad input gets one clear sentence."""

import errno
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from whisper.audio import mel_filters

from omni_lite.audio import (
    atomic_write,
    check_question,
    load_audio,
    load_question,
    log_mel,
    save_wav,
    to_int16,
    to_mono_rate,
    trim_quiet,
)


def tone(hz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def loudest_hz(wave: torch.Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave))).abs()
    return float(spectrum.argmax()) * rate / len(wave)


def assert_one_sentence(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    text = str(error.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text, text
    for word in words:
        assert word in text, f"{word!r} is missing in: {text}"


# --- resampling ------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000])
def test_resampling_keeps_pitch_loudness_and_length(rate: int) -> None:
    wave = to_mono_rate(tone(1000, rate), rate, 16_000)
    assert wave.dtype == torch.float32 and abs(len(wave) - 16_000) <= 1
    assert loudest_hz(wave, 16_000) == pytest.approx(1000, abs=2)
    assert float(wave[2000:-2000].abs().max()) == pytest.approx(0.5, abs=0.01)


def test_tones_above_nyquist_are_removed_not_folded() -> None:
    wave = to_mono_rate(tone(11_000, 48_000), 48_000, 16_000)  # would fold to 5 kHz
    assert float(wave[500:-500].abs().max()) < 0.5 * 1e-3      # 60 dB down
    kept = to_mono_rate(tone(6_000, 48_000), 48_000, 16_000)
    assert float(kept[500:-500].abs().max()) > 0.49


def test_the_same_rate_changes_nothing() -> None:
    wave = tone(440, 16_000)
    assert np.array_equal(to_mono_rate(wave, 16_000, 16_000).numpy(), wave)


def test_channels_are_averaged() -> None:
    left, right = tone(300, 16_000), np.zeros(16_000, np.float32)
    mono = to_mono_rate(np.stack([left, right], axis=1), 16_000, 16_000)
    np.testing.assert_allclose(mono.numpy(), left / 2, atol=1e-7)


def test_integers_are_scaled_to_one() -> None:
    assert to_mono_rate(np.array([-32768, 16384], np.int16), 1, 1).tolist() == [-1.0, 0.5]
    assert to_mono_rate(np.array([0, 128, 192], np.uint8), 1, 1).tolist() == [-1.0, 0.0, 0.5]
    assert to_mono_rate(torch.tensor([1 << 30], dtype=torch.int32), 1, 1).tolist() == [0.5]


@pytest.mark.parametrize(
    ("samples", "rate", "word"), [(np.zeros(9), 0, "0 Hz"), (np.zeros((2, 2, 2)), 1, "axes")]
)
def test_impossible_audio_is_refused(samples: np.ndarray, rate: int, word: str) -> None:
    with pytest.raises(ValueError) as error:
        to_mono_rate(samples, rate, 16_000)
    assert_one_sentence(error, word)


# --- files -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_every_format_any_rate_and_stereo_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"tone.{kind}"
    stereo = np.stack([tone(700, 44_100), tone(700, 44_100)], axis=1)
    soundfile.write(path, stereo, 44_100)
    wave = load_audio(path)
    assert wave.shape == (len(wave),) and wave.dtype == torch.float32
    assert abs(len(wave) - 16_000) < 1200  # mp3 may add a frame of silence
    assert loudest_hz(wave, 16_000) == pytest.approx(700, abs=2)
    assert float(wave[4000:-4000].abs().max()) == pytest.approx(0.5, abs=0.03)


def test_a_saved_wav_comes_back_sample_for_sample(tmp_path: Path) -> None:
    wave = torch.arange(-32768, 32768, 7, dtype=torch.float32) / 32768
    save_wav(tmp_path / "new" / "a.wav", wave, 24_000)
    assert torch.equal(load_audio(tmp_path / "new" / "a.wav", 24_000), wave)
    info = soundfile.info(tmp_path / "new" / "a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")


def test_loud_samples_are_clipped_and_never_wrap() -> None:
    loud = torch.tensor([1.0, 1.5, 1e9, float("inf"), -1.0, -1.5, float("-inf"), float("nan"), 0.999999])
    assert to_int16(loud).tolist() == [32767, 32767, 32767, 32767, -32768, -32768, -32768, 0, 32767]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answer.wav"
    save_wav(path, torch.zeros(100), 24_000)
    before = path.read_bytes()

    def disk_full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])  # half of it still fits
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError) as error:
        save_wav(path, torch.ones(5000), 24_000)
    assert_one_sentence(error, "answer.wav", "No space left", "free some space")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["answer.wav"]


def test_a_new_file_takes_the_old_ones_place_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    save_wav(path, torch.zeros(100), 24_000)
    old = path.stat().st_ino
    save_wav(path, torch.ones(50), 24_000)
    assert path.stat().st_ino != old  # not rewritten in place, where a reader could see half of it
    assert len(load_audio(path, 24_000)) == 50


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["folder", "file/inside.wav"])
def test_an_impossible_place_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError) as error:
        save_wav(tmp_path / place, torch.zeros(100), 24_000)
    assert_one_sentence(error, place, "choose another place")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("none.wav", None, FileNotFoundError, ["There is no audio file", "check the spelling"]),
        ("zero.wav", b"", ValueError, ["is empty (0 bytes)", "record or copy it again"]),
        ("notes.txt", b"only words, no sound at all" * 9, ValueError, ["cannot be read", "ffmpeg"]),
        ("noise.raw", b"\1" * 99, ValueError, ["cannot be read", "ffmpeg"]),
        ("header.wav", b"RIFF\x24\x10\x00\x00WAVEfmt \x10\x00", ValueError, ["cannot be read", "ffmpeg"]),
    ],
)
def test_bad_files_are_named_with_a_remedy(
    tmp_path: Path, name: str, content: bytes | None, kind: type[Exception], words: list[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for read in (load_audio, load_question):
        with pytest.raises(kind) as error:
            read(path)
        assert_one_sentence(error, name, *words)


def test_a_folder_is_no_audio_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        load_audio(tmp_path)
    assert_one_sentence(error, str(tmp_path), "is a folder")


def test_a_flac_cut_in_half_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 40_000), 16_000)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError) as error:
        load_audio(path)
    assert_one_sentence(error, "cut.flac", "damaged")


# --- questions -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0), ["no samples", "record it again"]),
        (np.full(16_000, np.nan), ["NaN", "export it again"]),
        (np.full(16_000, np.inf), ["infinite", "export it again"]),
        (np.zeros(16_000), ["silent", "microphone"]),
        (np.full(16_000, 0.2), ["silent", "microphone"]),  # a constant is no sound either
        (tone(440, 16_000, 0.05), ["0.05 s", "less than 0.1 s"]),
        (tone(440, 16_000, 30.5), ["30.5 s", "more than 30 s", "cut it"]),
        (np.ones((100, 2)), ["(100, 2)", "to_mono_rate"]),
    ],
)
def test_unanswerable_questions_are_refused(samples: np.ndarray, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        check_question(samples, "question.wav")
    assert_one_sentence(error, "question.wav", *words)


@pytest.mark.parametrize("seconds", [0.1, 2.0, 30.0])
def test_good_questions_pass(seconds: float) -> None:
    check_question(torch.from_numpy(tone(440, 16_000, seconds)), "question.wav")
    check_question(1e-3 * tone(440, 16_000, seconds), "a quiet question")


def test_load_question_reads_and_checks(tmp_path: Path) -> None:
    save_wav(tmp_path / "good.wav", tone(440, 24_000), 24_000)
    assert len(load_question(tmp_path / "good.wav")) == 16_000
    save_wav(tmp_path / "long.wav", tone(440, 8_000, 31), 8_000)
    save_wav(tmp_path / "none.wav", np.zeros(0), 8_000)
    save_wav(tmp_path / "still.wav", np.zeros(8_000), 8_000)
    for name, word in [("long.wav", "31.0 s"), ("none.wav", "no samples"), ("still.wav", "silent")]:
        with pytest.raises(ValueError) as error:
            load_question(tmp_path / name)
        assert_one_sentence(error, name, word)


def test_what_was_heard_in_inference_mode_does_not_spoil_training() -> None:
    mel_filters.cache_clear()
    wav = torch.from_numpy(tone(1000, 16_000))
    with torch.inference_mode():
        log_mel(wav)
    log_mel(wav.requires_grad_()).sum().backward()
    assert wav.grad is not None and wav.grad.abs().sum() > 0


def test_log_mel_has_a_column_every_10_ms_and_finds_the_tone() -> None:
    mel = log_mel(torch.from_numpy(tone(1000, 16_000)), padding=3200)
    assert mel.shape == (80, 120)
    # 80 bands on Slaney's scale, 0 to 8 kHz; linear below 1 kHz: 45.2 mel at the top, 15 mel at 1 kHz
    assert abs(int(mel[:, 50].argmax()) - round(15 / 45.245 * 81 - 1)) <= 1
    assert float(mel[:, 110].max()) == float(mel.min())  # the silence lies at the floor


# --- silence around the words ------------------------------------------------------------------------
@pytest.mark.parametrize("noise", [0.0, 0.001, 0.02])
def test_long_silence_is_cut_and_short_silence_kept(noise: float) -> None:
    words = torch.from_numpy(tone(300, 16_000))
    wave = torch.cat([torch.zeros(16_000), words, torch.zeros(24_000)])
    wave += noise * torch.randn(len(wave), generator=torch.Generator().manual_seed(0))
    cut = trim_quiet(wave)
    assert len(cut) == pytest.approx(16_000 * 1.6, abs=2 * 320)
    assert torch.equal(cut, wave[11_200 : 11_200 + len(cut)])
    assert torch.equal(trim_quiet(cut), cut)


@pytest.mark.parametrize("wave", [torch.zeros(16_000), torch.ones(100), torch.zeros(0)])
def test_nothing_to_cut(wave: torch.Tensor) -> None:
    assert torch.equal(trim_quiet(wave), wave)
