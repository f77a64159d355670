"""Speaking while the text is being written: one loop that yields the text's pieces and seven codes a step."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from omni_lite.generate import sample
from omni_lite.vocab import NUM_STREAMS
from omni_lite.voice.model import PHONEMES_AFTER, PHONEMES_BEFORE, Voice, VoiceCache
from omni_lite.voice.words import Reader, Sentence

LONGEST_STAY = 24                            # steps at one phoneme, then the pointer moves on: 2 s
SILENT_STAY = 8                              # the same at the end of a sentence


@dataclass(frozen=True)
class VoiceSampling:
    """How codes and advances are drawn; temperature 0 takes the most probable one."""

    temperature: float = 0.6
    top_k: int = 40
    advance_temperature: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class VoiceStep:
    """One step of an answer.

    text:     what the LLM wrote since the step before.
    sentence: number of the sentence that is spoken at this step, from 0.
    codes:    (7,) int64, delayed; `Voice.silence` in streams that have not begun.
    frame:    (7,) int64, the frame that this step completes, if any.
    last:     no step follows.
    """

    text: str
    sentence: int
    codes: Tensor
    frame: Tensor | None
    last: bool = False


@dataclass
class Pointer:
    """Where the voice is in the text."""

    sentence: int = 0
    phoneme: int = 0
    stay: int = 0


@dataclass
class Speaker:
    """Speaks one answer."""

    voice: Voice
    reader: Reader
    sampling: VoiceSampling = VoiceSampling()
    pointer: Pointer = field(default_factory=Pointer)

    def __post_init__(self) -> None:
        self.ids = {one: number for number, one in enumerate(self.voice.config.phonemes, 1)}
        self.random = torch.Generator().manual_seed(self.sampling.seed)
        self._encoded: tuple[int, int, Tensor] | None = None      # sentence, phonemes, their vectors

    def sentence(self) -> Sentence | None:
        """The sentence that is being spoken, if it has begun to exist."""
        sentences = self.reader.sentences
        return sentences[self.pointer.sentence] if self.pointer.sentence < len(sentences) else None

    def phonemes(self) -> str:
        """Its phonemes that the voice knows."""
        one = self.sentence()
        return "" if one is None else "".join(p for p in one.phonemes if p in self.ids)

    def ready(self) -> bool:
        """Whether enough of the text is known for the next step."""
        one = self.sentence()
        if one is None:
            return False
        return one.complete or len(self.phonemes()) > self.pointer.phoneme + self.voice.config.lookahead

    def around(self) -> Tensor:
        """The text vectors around the pointer: (1, 1, 4 * D_text)."""
        known = self.phonemes()
        if self._encoded is None or self._encoded[:2] != (self.pointer.sentence, len(known)):
            ids = torch.tensor([[self.ids[p] for p in known]])
            self._encoded = self.pointer.sentence, len(known), self.voice.text(ids)[0]
        vectors = self._encoded[2]
        places = range(self.pointer.phoneme - PHONEMES_BEFORE, self.pointer.phoneme + PHONEMES_AFTER + 1)
        zero = torch.zeros(vectors.shape[1])
        return torch.cat([vectors[i] if 0 <= i < len(vectors) else zero for i in places])[None, None]

    @torch.inference_mode()
    def steps(self, pieces: Iterator[str]) -> Generator[VoiceStep, None, None]:
        """Speak what the pieces say; each step takes at most one piece more than it needs."""
        config, cache = self.voice.config, VoiceCache()
        past = torch.full((1, NUM_STREAMS, 1), self.voice.silence)
        history: list[Tensor] = []
        written, more, left = "", True, -1   # left: steps until the delayed streams have finished
        while left:
            wanted = True
            while more and (wanted or not self.ready()):
                piece = next(pieces, None)
                wanted = False
                if piece is None:
                    self.reader.finish()
                    more = False
                else:
                    written += piece
                    self.reader.feed(piece)
            if left < 0 and self.sentence() is None:
                if not history:
                    break                    # there was nothing to say
                left, self.pointer.sentence = NUM_STREAMS - 1, self.pointer.sentence - 1
                self.pointer.phoneme = len(self.phonemes()) - 1      # where the answer ended
            stay = torch.tensor([[min(self.pointer.stay, config.stays - 1)]])
            codes, advance = self.voice.step(self.around(), stay, past, cache)
            drawn = sample(codes[0], self.sampling.temperature, self.sampling.top_k, generator=self.random)
            begun = torch.arange(NUM_STREAMS) <= len(history)
            drawn = torch.where(begun, drawn, self.voice.silence)
            history.append(drawn)
            past = drawn[None, :, None]
            frame = None
            if len(history) >= NUM_STREAMS:
                first = len(history) - NUM_STREAMS
                frame = torch.stack([history[first + i][i] for i in range(NUM_STREAMS)])
            yield VoiceStep(written, self.pointer.sentence, drawn, frame, last=left == 1)
            written = ""
            if left > 0:
                left -= 1
            else:
                self.move(int(sample(advance[0], self.sampling.advance_temperature, generator=self.random)))

    def move(self, by: int) -> None:
        """Move the pointer forward; from the last phoneme it goes to the next sentence."""
        one = self.sentence()
        assert one is not None
        last = len(self.phonemes()) - 1
        at_end = one.complete and self.pointer.phoneme >= last
        if by == 0 and self.pointer.stay + 1 >= (SILENT_STAY if at_end else LONGEST_STAY):
            by = 1
        self.pointer.stay = 0 if by else self.pointer.stay + 1
        if by and at_end:
            self.pointer.sentence, self.pointer.phoneme = self.pointer.sentence + 1, 0
        else:
            self.pointer.phoneme = min(self.pointer.phoneme + by, last)


@cache
def g2p() -> tuple[Callable[[str], str], Callable[[str], list[str]]]:
    """hibari's G2P and its splitting into sentences, loaded once.

    raises: FileNotFoundError of one sentence if the package hibari-tts is not installed
    """
    try:
        from hibari.g2p import G2P
        from hibari.tts import Hibari
    except ImportError as error:
        raise FileNotFoundError("The voice reads words with the package hibari-tts, which is not installed: run "
                                "`make smollm2` or `pip install hibari-tts`.") from error

    return G2P(), Hibari.split_sentences


def reader() -> Reader:
    """A reader of one answer with hibari's G2P."""
    return Reader(*g2p())
