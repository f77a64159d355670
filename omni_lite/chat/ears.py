"""Ears that hear words: Whisper's own decoder writes the question down, and the words go into the chat.

Whisper fills up each question with silence to 30 s, and most of its time goes into that silence. Here its encoder sees
the question alone. The decoder, which repeats itself if the silence is missing, gets the features of silence that were
computed once:

    features   |<-- question + 0.5 s -->|<-- of 30 s of silence, from here on: at least 10 s -->|

`python -m benchmarks.people` compares both on recorded people.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import Whisper

from omni_lite.hear import Ears
from omni_lite.interop.whisper import load_whisper
from omni_lite.vocab import EAR_RATE, MAX_QUESTION_SECONDS

PADDING = EAR_RATE // 2                      # samples of silence that the encoder sees behind the question
SILENCE, SHORTEST = 500, 750                 # features, 50 a second: of silence at least, of all at least
LONGEST = MAX_QUESTION_SECONDS * EAR_RATE
NO_SPEECH = 0.5
TOKENS_A_SECOND, MARGIN = 8, 10              # limit of a transcript: faster than any speech


@dataclass(frozen=True)
class Transcript:
    """What Whisper heard; no_speech: the probability that nobody spoke."""

    text: str
    no_speech: float

    @property
    def is_speech(self) -> bool:
        """Whether there are words, and somebody spoke them."""
        return any(map(str.isalnum, self.text)) and self.no_speech < NO_SPEECH


class Decoding(DecodingTask):
    """Whisper's decoding of features that do not fill its 30 s."""

    def _get_audio_features(self, mel: Tensor) -> Tensor:
        return mel


class WordEars:
    """Whisper, encoder and decoder: a question in, its words out."""

    def __init__(self, whisper: Whisper, padding: int = PADDING) -> None:
        self.whisper, self.encoder, self.padding = whisper.eval(), Ears(whisper.encoder), padding
        with torch.inference_mode():
            self.silence = self.encoder.hear(torch.zeros(LONGEST, device=whisper.device))    # (1, 1500, D)

    @torch.inference_mode()
    def transcribe(self, wav_16k: Tensor) -> Transcript:
        """(N,) float32 at 16 kHz, at most 30 s -> its transcript, greedily."""
        padded = F.pad(wav_16k[:LONGEST], (0, self.padding))[:LONGEST]
        question = self.encoder.hear(padded.to(self.whisper.device))
        T = question.shape[1]
        features = torch.cat([question, self.silence[:, T : max(SHORTEST, T + SILENCE)]], dim=1)
        room = MARGIN + math.ceil(TOKENS_A_SECOND * len(wav_16k) / EAR_RATE)
        options = DecodingOptions(language="en", without_timestamps=True, fp16=False,
                                  sample_len=min(room, self.whisper.dims.n_text_ctx // 2))
        result = Decoding(self.whisper, options).run(features)[0]
        return Transcript(result.text.strip(), result.no_speech_prob)

    def hear(self, wav_16k: Tensor) -> str:
        """The question's words; raises ValueError if there are none."""
        found = self.transcribe(wav_16k)
        if not found.is_speech:
            raise ValueError("No words were heard in the question: say it once more, closer to the microphone.")
        return found.text


def load_word_ears(name: str = "tiny.en", device: str = "cpu") -> WordEars:
    """A published Whisper, see `interop.whisper.load_whisper`."""
    return WordEars(load_whisper(name, full=True).to(device))
