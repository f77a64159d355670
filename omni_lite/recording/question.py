"""Turn a recording into a question that can be answered, or say in one sentence why it cannot."""

from pathlib import Path

from torch import Tensor

from omni_lite.audio import Samples, check_level, check_seconds, to_mono_rate
from omni_lite.recording.containers import read_audio
from omni_lite.recording.speech import only_speech
from omni_lite.vocab import EAR_RATE, MAX_QUESTION_SECONDS

MAX_RECORDING_SECONDS = 600                  # of a question's file, before its silence is cut


def load_question(path: str | Path) -> Tensor:
    """Read a spoken question, check it and cut the silence around it; see `prepare_question`.

    The function stops reading after 10 minutes of sound and refuses the file.

    returns: (N,) float32 at 16 kHz
    """
    samples, rate = read_audio(path, MAX_RECORDING_SECONDS)
    return prepare_question(samples, rate, str(path))


def prepare_question(samples: Samples, rate: int, name: str) -> Tensor:
    """Turn the samples of a microphone or a file into a question that can be answered.

    A recording of up to 10 minutes may hold up to 30 s of speech. `only_speech` cuts the silence around it.

    samples: (N,) or (N, channels); float in -1..1, or integers of any width
    name: what the message calls the recording, for example the file's name
    returns: (n,) float32 at 16 kHz, 0.1 to 30 s
    raises: ValueError of one sentence: too short, too long, silent, or without speech
    """
    wav_16k = to_mono_rate(samples, rate, EAR_RATE)
    check_seconds(len(wav_16k) / EAR_RATE, name, MAX_RECORDING_SECONDS)
    check_level(wav_16k, name)
    speech = only_speech(wav_16k, name)
    if len(speech) > MAX_QUESTION_SECONDS * EAR_RATE:
        raise ValueError(
            f"{name} holds {len(speech) / EAR_RATE:.1f} s of speech, more than {MAX_QUESTION_SECONDS} s: "
            "cut it to one question."
        )
    return speech
