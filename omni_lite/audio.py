"""Waves in memory: mix, resample, check a question, log-mel, write a wav. `recording` reads files.

Inside the project a wave is a float32 tensor (N,), mono, between -1 and 1.
Its name carries its rate: the model hears `wav_16k` and speaks `wav_24k`.
"""

import errno
import io
import os
import threading
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
SILENCE_PEAK = 1e-4                          # -80 dB: the microphone was muted
INT16_SCALE = 32_768                         # 1.0 as a 16-bit sample; int16 ends at 32,767


def to_mono_rate(samples: Samples, from_rate: int, to_rate: int) -> Tensor:
    """Mix to one channel and resample; the filter removes frequencies above the new Nyquist rate.

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
    """Convert to a float32 array of the same shape; integer samples are scaled to -1..1."""
    array = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if array.dtype == np.uint8:              # 8-bit wav is unsigned, its zero at 128
        return (array.astype(np.float32) - 128) / 128
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.float32) / -float(np.iinfo(array.dtype).min)
    return array.astype(np.float32)


def check_question(samples: Samples, name: str, rate: int = EAR_RATE) -> None:
    """Raise a ValueError of one sentence if samples in memory cannot be a question.

    The function checks shape, length and level. Only `prepare_question` looks for speech.

    name: what the message calls the samples, for example the file's name
    """
    array = as_array(samples)
    if array.ndim != 1:
        raise ValueError(f"{name} has the shape {array.shape}: mix it to mono with `to_mono_rate` first.")
    check_seconds(array.size / rate, name)
    check_level(array, name)


def check_seconds(seconds: float, name: str, longest: float = MAX_QUESTION_SECONDS) -> None:
    """Raise a ValueError of one sentence if this is too short or too long for a question."""
    if seconds == 0:
        raise ValueError(f"{name} holds no samples: record it again.")
    if seconds < MIN_QUESTION_SECONDS:
        raise ValueError(
            f"{name} lasts {seconds:.2f} s, less than {MIN_QUESTION_SECONDS} s: record a whole question."
        )
    if seconds > longest:
        raise ValueError(f"{name} lasts {seconds:.1f} s, more than {longest} s: cut it to one question.")


def check_level(samples: Samples, name: str) -> None:
    """Raise a ValueError of one sentence if samples are not finite, or silent but for a constant."""
    array = as_array(samples)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite samples: record or export it again.")
    if np.abs(array - array.mean()).max() < SILENCE_PEAK:
        raise ValueError(f"{name} is silent: check that the microphone is not muted and record it again.")


def log_mel(wav_16k: Tensor, n_mels: int = 80, padding: int = 0) -> Tensor:
    """Whisper's own log-mel spectrogram, one column every 10 ms.

    wav_16k: (N,) float32
    padding: samples of silence added at the end
    returns: (n_mels, (N + padding) // 160); values lie at most 8 powers of ten below the clip's loudest
    """
    with torch.inference_mode(False):        # Whisper caches its filters; training cannot use inference tensors
        mel_filters(wav_16k.device, n_mels)
    return log_mel_spectrogram(wav_16k, n_mels=n_mels, padding=padding)


def to_int16(wave: Samples) -> np.ndarray:
    """Convert float -1..1 to 16-bit samples: louder values are clipped, NaN becomes silence."""
    scaled = np.nan_to_num(as_array(wave) * INT16_SCALE).round()
    return scaled.clip(-INT16_SCALE, INT16_SCALE - 1).astype(np.int16)


def save_wav(path: str | Path, wave: Samples, rate: int) -> None:
    """Write a mono 16-bit wav; a failed write leaves an older file of that name unchanged.

    wave: (N,) float in -1..1 (louder is clipped), or integers
    """
    encoded = io.BytesIO()
    soundfile.write(encoded, to_int16(wave), rate, format="WAV", subtype="PCM_16")
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` when the block ends without an error.

    If the disk fills up or the program is interrupted, the temporary file is removed and a
    good file already there stays. An OSError about another file passes through unchanged.

        with atomic_write("model.safetensors") as temporary:
            save_file(tensors, temporary)
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # An error of open() names the file; one of write() on a full disk names none.
        if temporary.name in str(error) or (error.filename is None and _full(error)):
            raise _refusal(path, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def _refusal(path: Path, error: OSError) -> OSError:
    """The same error in one sentence that names the file and says what to do."""
    full = _full(error)
    remedy = "free some space or choose another place" if full else "choose another place"
    reason = full or error.strerror or error
    return OSError(f"{path} could not be written ({reason}): {remedy}; nothing there was changed.")


def _full(error: OSError) -> str:
    """What a full disk or quota is called, else ""; libraries in other languages say it only in their text."""
    names = {code: os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
    return names.get(error.errno or 0, "") or next((name for name in names.values() if name in str(error)), "")
