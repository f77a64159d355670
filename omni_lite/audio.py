"""Sound in and sound out: read any common file, check a question, write a wav.

Inside the project a wave is always a float32 tensor (N,), mono, between -1 and 1,
and its name carries its rate: `wav_16k` is heard, `wav_24k` is spoken.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from whisper.audio import log_mel_spectrogram, mel_filters

from omni_lite.vocab import EAR_RATE, MAX_QUESTION_SECONDS, MIN_QUESTION_SECONDS

Samples = Tensor | np.ndarray | list[float]

SILENCE_PEAK = 1e-4                          # -80 dB: below this a microphone was muted
INT16_SCALE = 32_768                         # 1.0 as a 16-bit sample: one more than int16 can hold


def load_audio(path: str | Path, rate: int = EAR_RATE) -> Tensor:
    """Read a wav, flac, ogg or mp3 file of any rate and any number of channels.

    returns: (N,) float32 at `rate`, the mean of the channels
    """
    with open_audio(path) as file:
        samples, from_rate = file.read(dtype="float32", always_2d=True), file.samplerate
    return to_mono_rate(samples, from_rate, rate)


def load_question(path: str | Path) -> Tensor:
    """Read a spoken question and make sure that it can be answered; (N,) float32 at 16 kHz.

    A file that is too long is refused before its samples are read.
    """
    with open_audio(path) as file:
        check_seconds(file.frames / file.samplerate, str(path))
    wav_16k = load_audio(path, EAR_RATE)
    check_question(wav_16k, str(path))
    return wav_16k


@contextmanager
def open_audio(path: str | Path) -> Iterator[soundfile.SoundFile]:
    """An open sound file, or one sentence about what is wrong with it."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of one audio file inside it.")
    if not path.exists():
        raise FileNotFoundError(f"There is no audio file {path}: check the spelling and the folder.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): record or copy it again.")
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a .raw file, which has no header
        raise ValueError(
            f"{path} cannot be read as audio, being damaged or of another format: "
            f"convert it first, for example with `ffmpeg -i {path.name} question.wav`."
        ) from error


def to_mono_rate(samples: Samples, from_rate: int, to_rate: int) -> Tensor:
    """Mix to one channel and resample; frequencies above the new Nyquist rate are removed.

    samples: (N,) or (N, channels); float in -1..1, or integers of any width
    returns: (N * to_rate / from_rate,) float32
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"A sample rate of {min(from_rate, to_rate)} Hz is impossible: give a rate above 0.")
    array = as_array(samples)
    if array.ndim == 2:
        array = array.mean(axis=1)
    elif array.ndim != 1:
        raise ValueError(f"Audio of shape {array.shape} has too many axes: give (N,) or (N, channels).")
    if from_rate != to_rate and array.size:
        array = soxr.resample(array, from_rate, to_rate, quality="HQ")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def as_array(samples: Samples) -> np.ndarray:
    """float32 array of the same shape; integer samples are scaled to -1..1."""
    array = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if array.dtype == np.uint8:              # 8-bit wav is unsigned, its zero at 128
        return (array.astype(np.float32) - 128) / 128
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.float32) / -float(np.iinfo(array.dtype).min)
    return array.astype(np.float32)


def check_question(samples: Samples, name: str, rate: int = EAR_RATE) -> None:
    """Raise a ValueError of one sentence if nobody could answer this recording.

    name: what the message calls it, for example the file's name
    """
    array = as_array(samples)
    if array.ndim != 1:
        raise ValueError(f"{name} has the shape {array.shape}: mix it to mono with `to_mono_rate` first.")
    check_seconds(array.size / rate, name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite samples: record or export it again.")
    if np.abs(array - array.mean()).max() < SILENCE_PEAK:
        raise ValueError(f"{name} is silent: check that the microphone is not muted and record it again.")


def check_seconds(seconds: float, name: str) -> None:
    """Raise a ValueError of one sentence if this is too short or too long for a question."""
    if seconds == 0:
        raise ValueError(f"{name} holds no samples: record it again.")
    if seconds < MIN_QUESTION_SECONDS:
        raise ValueError(
            f"{name} lasts {seconds:.2f} s, less than {MIN_QUESTION_SECONDS} s: record a whole question."
        )
    if seconds > MAX_QUESTION_SECONDS:
        raise ValueError(
            f"{name} lasts {seconds:.1f} s, more than {MAX_QUESTION_SECONDS} s: cut it to one question."
        )


def trim_quiet(wav_16k: Tensor, keep_s: float = 0.3) -> Tensor:
    """Cut a long silence before and after the words: whoever holds a button waits before speaking.

    Quiet is what stays 40 dB below the loudest 20 ms; in a noisy room three times the noise, but
    never less than 20 dB below. Of it, `keep_s` stays on either side, where soft sounds may hide.
    """
    size = EAR_RATE // 50                     # 20 ms
    N = len(wav_16k) // size
    if N == 0:
        return wav_16k
    rms = wav_16k[: N * size].view(N, size).pow(2).mean(dim=1).sqrt()
    limit = (3 * rms.quantile(0.1)).clamp(0.01 * rms.max(), 0.1 * rms.max())
    loud = (rms >= limit).nonzero().flatten()
    keep = round(keep_s * EAR_RATE)
    first, last = int(loud[0]) * size, (int(loud[-1]) + 1) * size
    return wav_16k[max(0, first - keep) : last + keep]


def log_mel(wav_16k: Tensor, n_mels: int = 80, padding: int = 0) -> Tensor:
    """Whisper's own log-mel spectrogram, one column every 10 ms.

    wav_16k: (N,) float32
    padding: samples of silence added at the end
    returns: (n_mels, (N + padding) // 160); scaled so that 8 powers of ten below the clip's
             loudest value are kept
    """
    with torch.inference_mode(False):        # Whisper keeps its filters; made in inference mode they would bar training
        mel_filters(wav_16k.device, n_mels)
    return log_mel_spectrogram(wav_16k, n_mels=n_mels, padding=padding)


def to_int16(wave: Samples) -> np.ndarray:
    """float -1..1 to 16-bit samples: what is louder is clipped, never wrapped around; NaN is silence."""
    scaled = np.nan_to_num(as_array(wave) * INT16_SCALE).round()
    return scaled.clip(-INT16_SCALE, INT16_SCALE - 1).astype(np.int16)


def save_wav(path: str | Path, wave: Samples, rate: int) -> None:
    """Write a mono 16-bit wav; a failed write leaves an older file of that name as it was.

    wave: (N,) float in -1..1 (louder is clipped), or integers
    """
    encoded = io.BytesIO()
    soundfile.write(encoded, to_int16(wave), rate, format="WAV", subtype="PCM_16")
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; only when all went well it becomes `path`.

    If the disk fills up or the program is interrupted, the temporary file is removed and a
    good file already there stays.

        with atomic_write("model.safetensors") as temporary:
            save_file(tensors, temporary)
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}): "
            "free some space or choose another place; nothing there was changed."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
