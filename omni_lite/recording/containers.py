"""Read the sound of any common file: libsndfile decodes what it can open, FFmpeg the rest."""

import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
from torch import Tensor

from omni_lite.audio import as_array, to_mono_rate
from omni_lite.vocab import EAR_RATE

BLOCK = 1 << 18                              # samples that are read at once
# FFmpeg also reads playlists, which name other files and web addresses, and draws text files as pictures.
# A file is only read as one of these formats.
CONTAINERS = (
    "mov,mp4,matroska,webm,ogg,aac,amr,amrnb,amrwb,asf,avi,flv,mpegts,mpeg,mp3,wav,w64,flac,aiff,au,caf,ac3,eac3"
)


def load_audio(path: str | Path, rate: int = EAR_RATE) -> Tensor:
    """Read a sound file of any rate and any number of channels, or the sound of a video.

    Formats: wav, flac, ogg, mp3, m4a, mp4, webm, opus, aac, amr, wma and others.

    returns: (N,) float32 at `rate`, the mean of the channels
    """
    samples, from_rate = read_audio(path)
    return to_mono_rate(samples, from_rate, rate)


def read_audio(path: str | Path, longest_s: float = math.inf) -> tuple[np.ndarray, int]:
    """Read a file's samples, mixed to mono, and its rate; a ValueError of one sentence says what is wrong with it.

    longest_s: refuse a file that lasts more seconds, without reading the rest of it
    returns: (N,) float32; samples a second
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of one audio file inside it.")
    if not path.exists():
        raise FileNotFoundError(f"There is no audio file {path}: check the spelling and the folder.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): record or copy it again.")
    mono, rate, length = [np.zeros(0, np.float32)], EAR_RATE, 0
    try:
        for block, rate in _blocks(path):
            mono.append(block.mean(axis=1))
            length += len(block)
            if length > longest_s * rate:
                break
    except (soundfile.LibsndfileError, av.FFmpegError) as error:
        raise ValueError(
            f"{path} cannot be read as audio (damaged, or of an unknown format): "
            "record it again, or convert it to wav, flac, mp3 or m4a."
        ) from error
    if length > longest_s * rate:
        raise ValueError(f"{path} lasts more than {longest_s / 60:.0f} minutes: cut it to one question.")
    return np.concatenate(mono), rate


def _blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the file's sound piece by piece, (n, channels) float32, each with its rate.

    libsndfile decodes what it can open, FFmpeg the rest.
    """
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a .raw file, which has no header
        yield from _ffmpeg_blocks(path)
        return
    with file:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            yield block, file.samplerate


def _ffmpeg_blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """The same through FFmpeg, one packet at a time: what telephones and browsers record."""
    with av.open(str(path), options={"format_whitelist": CONTAINERS}) as container:
        if not container.streams.audio:
            raise ValueError(f"{path} does not contain sound: choose a recording with a sound track.")
        for frame in container.decode(container.streams.audio[0]):
            samples = as_array(frame.to_ndarray())
            yield samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels), frame.rate
