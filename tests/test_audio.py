"""Sound in and out: what is read is what was written, and every bad input gets one clear sentence."""

import errno
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from whisper.audio import mel_filters

from omni_lite.audio import atomic_write, check_question, log_mel, save_wav, to_int16, to_mono_rate
from omni_lite.recording import containers, load_audio, load_question, prepare_question, question

QUESTION = Path(__file__).parents[1] / "data" / "audio" / "question.wav"


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


def write_container(path: Path, codec: str, rate: int, wave: np.ndarray | None, picture: bool = False) -> None:
    """Write (channels, N) float32, or no sound, as a phone or a browser does."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10) if picture else None
        layout = "mono" if wave is not None and len(wave) == 1 else "stereo"
        sound = None if wave is None else container.add_stream(codec, rate=rate, layout=layout)
        if video:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            frames = [av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")] * 3
            container.mux([packet for frame in [*frames, None] for packet in video.encode(frame)])
        if sound:
            whole = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
            whole.sample_rate = rate
            size = sound.codec_context.frame_size or 160
            parts = av.AudioResampler(sound.format, layout, rate, size).resample(whole)
            container.mux([packet for part in [*parts, None] for packet in sound.encode(part)])


CONTAINERS = [
    ("note.m4a", "aac", 44_100, 2, False),               # a telephone's recorder
    ("note.webm", "libopus", 48_000, 1, False),          # a browser's
    ("film.mp4", "aac", 48_000, 1, True),
    ("film.mov", "aac", 44_100, 2, True),
    ("note.opus", "libopus", 48_000, 2, False),
    ("note.aac", "aac", 16_000, 1, False),
    ("note.amr", "libopencore_amrnb", 8_000, 1, False),
    ("note.3gp", "libopencore_amrnb", 8_000, 1, False),
    ("note.caf", "alac", 44_100, 2, False),
]


@pytest.mark.parametrize(("name", "codec", "rate", "channels", "picture"), CONTAINERS, ids=lambda value: str(value))
def test_what_phones_and_browsers_record_is_read(
    tmp_path: Path, name: str, codec: str, rate: int, channels: int, picture: bool
) -> None:
    write_container(tmp_path / name, codec, rate, np.stack([tone(700, rate)] * channels), picture)
    wave = load_audio(tmp_path / name)
    assert wave.shape == (len(wave),) and wave.dtype == torch.float32
    assert abs(len(wave) - 16_000) < 1600                # the codec may add a frame
    assert loudest_hz(wave, 16_000) == pytest.approx(700, abs=3)
    assert float(wave[4000:-4000].abs().max()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("name", "codec"), [("me.m4a", "aac"), ("me.webm", "libopus")])
def test_a_question_from_a_phone_is_the_question(tmp_path: Path, name: str, codec: str) -> None:
    write_container(tmp_path / name, codec, 48_000, load_audio(QUESTION, 48_000).numpy()[None])
    ours, theirs = load_question(tmp_path / name), load_question(QUESTION)
    assert abs(len(ours) - len(theirs)) < 800
    size = 1 << 16
    product = torch.fft.rfft(ours, size) * torch.fft.rfft(theirs, size).conj()
    assert float(torch.fft.irfft(product).max() / (ours.norm() * theirs.norm())) > 0.98


def test_a_film_without_sound_is_named(tmp_path: Path) -> None:
    write_container(tmp_path / "film.mp4", "aac", 48_000, None, picture=True)
    with pytest.raises(ValueError) as error:
        load_question(tmp_path / "film.mp4")
    assert_one_sentence(error, "film.mp4", "does not contain sound", "choose a recording")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {}\n"),
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text.format(QUESTION))
    with pytest.raises(ValueError) as error:
        load_audio(tmp_path / name)
    assert_one_sentence(error, name, "cannot be read")


def test_reading_in_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", wave, 16_000, subtype="FLOAT")
    whole = load_audio(tmp_path / "noise.wav")
    assert np.array_equal(whole.numpy(), wave.mean(axis=1))
    monkeypatch.setattr(containers, "BLOCK", 999)
    assert torch.equal(load_audio(tmp_path / "noise.wav"), whole)


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


def test_an_error_about_another_file_is_not_about_the_target(tmp_path: Path) -> None:
    missing = tmp_path / "shard.parquet"
    with pytest.raises(FileNotFoundError) as error, atomic_write(tmp_path / "all.parquet") as temporary:
        temporary.write_bytes(missing.read_bytes())
    assert error.value.filename == str(missing) and "space" not in str(error.value)
    refusal = ValueError("row 7 is damaged")
    with pytest.raises(ValueError) as damaged, atomic_write(tmp_path / "all.parquet") as temporary:
        temporary.write_bytes(b"half")
        raise refusal
    assert damaged.value is refusal
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device"),  # pyarrow
        OSError("Error while serializing: I/O error: No space left on device (os error 28)"),              # safetensors
    ],
)
def test_a_full_disk_is_known_in_every_library(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(OSError) as refusal, atomic_write(tmp_path / "all.parquet"):
        raise error
    assert_one_sentence(refusal, "all.parquet", "free some space")


def test_a_place_that_cannot_be_written_is_not_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError) as error, atomic_write(tmp_path / "file" / "question.wav"):
        pass
    assert_one_sentence(error, "question.wav", "choose another place")
    assert "space" not in str(error.value)


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    save_wav(tmp_path / "question.wav", torch.zeros(100), 24_000)
    before = (tmp_path / "question.wav").read_bytes()
    with pytest.raises(OSError) as error, atomic_write(tmp_path / "question.wav"):
        pass
    assert_one_sentence(error, "question.wav", "could not be written")
    assert (tmp_path / "question.wav").read_bytes() == before


def test_two_threads_do_not_write_into_each_other(tmp_path: Path) -> None:
    path, both = tmp_path / "question.wav", threading.Barrier(2)

    def write(letter: bytes) -> None:
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            for _ in range(3):
                both.wait()
                file.write(letter)
                file.flush()

    threads = [threading.Thread(target=write, args=[letter]) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in (b"aaa", b"bbb") and list(tmp_path.iterdir()) == [path]


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
        ("notes.txt", b"only words, no sound at all" * 9, ValueError, ["cannot be read", "convert it"]),
        ("noise.raw", b"\1" * 99, ValueError, ["cannot be read", "convert it"]),
        ("header.wav", b"RIFF\x24\x10\x00\x00WAVEfmt \x10\x00", ValueError, ["cannot be read", "convert it"]),
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


def spoken(copies: int, before: float = 0, after: float = 0) -> np.ndarray:
    """The bundled question several times, between seconds of silence, at 16 kHz."""
    words = load_audio(QUESTION).numpy()
    return np.concatenate([np.zeros(int(before * 16_000)), *[words] * copies, np.zeros(int(after * 16_000))])


def test_load_question_reads_and_checks(tmp_path: Path) -> None:
    assert torch.equal(load_question(QUESTION), load_audio(QUESTION))
    save_wav(tmp_path / "long.wav", spoken(18), 16_000)
    save_wav(tmp_path / "none.wav", np.zeros(0), 8_000)
    save_wav(tmp_path / "still.wav", np.zeros(8_000), 8_000)
    save_wav(tmp_path / "hum.wav", tone(50, 8_000), 8_000)
    save_wav(tmp_path / "brief.wav", tone(440, 8_000, 0.05), 8_000)
    for name, word in [("long.wav", "31.3 s of speech"), ("none.wav", "no samples"), ("still.wav", "silent"),
                       ("hum.wav", "holds no speech"), ("brief.wav", "0.05 s")]:
        with pytest.raises(ValueError) as error:
            load_question(tmp_path / name)
        assert_one_sentence(error, name, word)


@pytest.mark.parametrize(("before", "after"), [(12, 0), (0, 29), (40, 40)])
def test_silence_around_a_question_is_cut_before_its_length_is_checked(
    tmp_path: Path, before: int, after: int
) -> None:
    save_wav(tmp_path / "late.wav", spoken(1, before, after), 16_000)
    wave, alone = load_question(tmp_path / "late.wav"), load_question(QUESTION)
    assert abs(len(wave) - len(alone)) < 3200
    middle = slice(6400, 24_000)                         # in `alone`, at 0.4 to 1.5 s
    assert any(torch.equal(alone[middle], part) for part in wave.unfold(0, 17_600, 1)[::32])


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_a_microphones_samples_become_the_question_of_its_file(tmp_path: Path, rate: int) -> None:
    stereo = np.stack([load_audio(QUESTION, rate).numpy()] * 2, axis=1)
    soundfile.write(tmp_path / "question.wav", stereo, rate, subtype="FLOAT")
    assert torch.equal(prepare_question(stereo, rate, "The recording"), load_question(tmp_path / "question.wav"))
    with pytest.raises(ValueError) as error:
        prepare_question(tone(50, rate), rate, "The recording")
    assert_one_sentence(error, "The recording holds no speech")


@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_a_file_much_too_long_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(question, "MAX_RECORDING_SECONDS", 60)
    monkeypatch.setattr(containers, "BLOCK", 16_000)
    path = tmp_path / f"lecture.{kind}"
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 90 * 16_000)).astype(np.float32)
    if kind == "wav":
        soundfile.write(path, noise[0], 16_000)
    else:
        write_container(path, "aac", 16_000, noise)
    read = []
    blocks = containers._blocks

    def noted(name):
        for block, rate in blocks(name):
            read.append(len(block))
            yield block, rate

    monkeypatch.setattr(containers, "_blocks", noted)
    with pytest.raises(ValueError) as error:
        load_question(path)
    assert_one_sentence(error, path.name, "lasts more than 1 minutes")
    assert 60 * 16_000 < sum(read) <= 61 * 16_000
    with pytest.raises(ValueError) as error:
        prepare_question(noise[0], 16_000, "The recording")
    assert_one_sentence(error, "The recording lasts 90.0 s, more than 60 s")


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
