"""A chat model that hears and talks: ears, chat model and voice, each as it is."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from omni_lite.assistant import Reply, collect
from omni_lite.chat.ears import load_word_ears
from omni_lite.chat.llm import SMOLLM2, ChatModel, Message, load_chat_model
from omni_lite.generate import Step
from omni_lite.streams import Task
from omni_lite.vocab import EAR_RATE
from omni_lite.voice.folder import Mouth, load_mouth
from omni_lite.voice.speak import Speaker, VoiceSampling, reader

TOKENS = 160                                 # default limit of an answer's text
SAMPLING = VoiceSampling()
FRAMES = 1500                                # default limit of a spoken text: 128 s


class HearsWords(Protocol):
    """Anything that writes down a question."""

    def hear(self, wav_16k: Tensor) -> str: ...


class ChatAssistant:
    """`ask` streams an answer with its sound, `answer` returns it whole, `say` reads a text aloud.

    The interface is that of `omni_lite.assistant.Assistant`, so every demo runs with both.

    ears, llm, mouth: None for what is not needed; without a chat model it repeats the question
    history: the chat so far, for `ask(..., remember=True)`
    """

    def __init__(self, ears: HearsWords | None, llm: ChatModel | None, mouth: Mouth | None,
                 sampling: VoiceSampling = SAMPLING) -> None:
        self.ears, self.llm, self.mouth, self.sampling = ears, llm, mouth, sampling
        self.history: list[Message] = []

    def hear(self, wav_16k: Tensor) -> str:
        """(N,) float32 at 16 kHz -> the question's words; raises ValueError if there are none."""
        assert self.ears is not None, "this assistant has no ears"
        return self.ears.hear(wav_16k)

    def ask(self, question: Tensor | str, task: Task | str = Task.A1A2, *, remember: bool = False, seed: int = 0,
            limit: int | None = None) -> Iterator[Step]:
        """Stream an answer, step by step; closing the iterator ends the work.

        question: (N,) float32 at 16 kHz, or its words, typed or from `hear`.
        remember: answer as the next turn of `history`, and add this turn to it, also if it is cut short.
        seed:     of the voice.
        limit:    frames (85 ms each) of a spoken answer, tokens of a written one.
        """
        task = Task(task)
        words = question if isinstance(question, str) else self.hear(question)
        if task == Task.A1T1:
            yield written(0, words, "end")
            return
        pieces = self.pieces(words, remember, TOKENS if limit is None or task.speaks else limit)
        if task.speaks:
            yield from self.say(pieces, seed, limit)
        else:
            yield from in_text(pieces)

    def pieces(self, words: str, remember: bool, limit: int) -> Generator[str, None, None]:
        """The chat model's answer, piece by piece."""
        if self.llm is None:
            yield words
            return
        turns = [*(self.history if remember else []), dict(role="user", content=words)]
        answer = ""
        source = self.llm.reply(turns, limit)
        try:
            for piece in source:
                answer += piece
                yield piece
        finally:
            source.close()
            if remember and answer.strip():
                self.history = [*turns, dict(role="assistant", content=answer.strip())]

    def new_conversation(self) -> None:
        """Forget the turns so far."""
        self.history = []

    def say(self, text: str | Iterator[str], seed: int = 0, limit: int | None = None) -> Iterator[Step]:
        """Read a text aloud; it may still be growing.

        limit: frames; None: `FRAMES`
        """
        if self.mouth is None:
            raise ValueError("This assistant cannot speak: choose the task A1T2 or T1T2.")
        most, noted = FRAMES if limit is None else limit, list[str]()
        pieces = note(iter([text]) if isinstance(text, str) else text, noted)
        steps = Speaker(self.mouth.voice, reader(), replace(self.sampling, seed=seed)).steps(pieces)
        stream = self.mouth.codec.stream()
        try:
            for index, step in enumerate(steps):
                reason = "end" if step.last else "length" if index + 1 == most else None
                sound = [] if step.frame is None else [stream.push(step.frame[None, :, None])]
                sound += [stream.flush()] if reason else []
                pcm = torch.cat(sound, -1)[0, 0].numpy() if sound else np.zeros(0, np.float32)
                yield Step(index, None, 0, step.text, step.codes.numpy(), pcm if len(pcm) else None, reason)
                if reason:
                    return
            yield written(0, "".join(noted), "end")    # there was nothing to say
        finally:
            steps.close()
            pieces.close()

    def answer(self, question: Tensor | str, task: Task | str = Task.A1A2,
               watch: Callable[[Step, float, float], None] | None = None, since: float | None = None,
               **how: Any) -> Reply:
        """The whole answer and its timing; see `ask` and `Assistant.answer`."""
        began = perf_counter() if since is None else since
        return collect(self.ask(question, task, **how), began, watch)

    def warm_up(self) -> None:
        """Run each part once, so that the first question does not include the set-up."""
        if self.ears is not None:
            try:
                self.ears.hear(0.01 * torch.randn(EAR_RATE, generator=torch.Generator().manual_seed(0)))
            except ValueError:               # noise is not a question
                pass
        if self.llm is not None:
            self.llm.warm_up()
        if self.mouth is not None:
            for _ in self.say("Hello.", limit=9):
                pass


def note(pieces: Iterator[str], noted: list[str]) -> Generator[str, None, None]:
    """The same pieces; each is also added to `noted`. Closing it closes them."""
    try:
        for piece in pieces:
            noted.append(piece)
            yield piece
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


def written(index: int, text: str, reason: str | None) -> Step:
    """A step without sound."""
    return Step(index, None, 0, text, None, None, reason)


def in_text(pieces: Iterator[str]) -> Iterator[Step]:
    """Steps of a written answer; the last one says so."""
    index, before = 0, None
    for piece in pieces:
        if before is not None:
            yield written(index, before, None)
            index += 1
        before = piece
    yield written(index, before or "", "end")


def load_chat_assistant(llm: str = SMOLLM2, ears: str = "tiny.en", device: str = "cpu", voice: str | None = None,
                        speaks: bool = True) -> ChatAssistant:
    """Ears, a chat model and the voice.

    llm:   "smollm2", a folder, or an id on the Hugging Face hub.
    ears:  a name of Whisper's, such as "small.en".
    voice: another folder than the committed one;  speaks: False: written answers only
    raises: OSError or ValueError with one sentence
    """
    return ChatAssistant(load_word_ears(ears, device), load_chat_model(llm, device),
                         load_mouth(voice) if speaks else None)
