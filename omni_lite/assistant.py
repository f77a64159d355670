"""A whole model that answers questions: Whisper, language model, codec and tokenizer. `load.py` assembles one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from omni_lite.generate import Codec, Decoder, Sampling, Step, generate
from omni_lite.hear import Ears
from omni_lite.model import OmniModel
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE

SAMPLING = Sampling(audio_temperature=0.2, top_k=30)
# Classifier-free guidance, for a voice that was also trained without the text stream.
GUIDED = replace(SAMPLING, guidance=1.4)
FRAMES = 150                                 # default limit of an answer: 12.8 s


@dataclass
class Reply:
    """One whole answer and its timing.

    wav_24k: (N,) float32, empty for a written answer
    steps:   model steps, each 85.3 ms of the answer
    first_audio_ms, total_ms: from the question in memory to the first samples, and to the last
    """

    text: str = ""
    wav_24k: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    steps: int = 0
    first_audio_ms: float | None = None
    total_ms: float = 0.0
    reason: str = ""

    @property
    def audio_s(self) -> float:
        """Seconds of the spoken answer."""
        return len(self.wav_24k) / CODEC_RATE

    @property
    def rtf(self) -> float | None:
        """Real-time factor: seconds computed per second of sound."""
        return self.total_ms / 1000 / self.audio_s if self.audio_s else None


class Assistant:
    """Whisper, model, codec and tokenizer; `ask` streams an answer, `answer` returns it whole.

    sampling, frames: the defaults of `ask` for its sampling and limit
    decoder:   runs the model, such as a `fast.FastDecoder`; None: the readable path
    bf16_ears: Whisper computes in bfloat16, see `fast.hears_in_bf16`
    """

    def __init__(
        self,
        ears: Ears,
        model: OmniModel,
        codec: Codec,
        tokenizer: Tokenizer,
        sampling: Sampling = SAMPLING,
        frames: int = FRAMES,
        decoder: Decoder | None = None,
        bf16_ears: bool = False,
    ) -> None:
        self.ears, self.model, self.codec, self.tokenizer = ears, model.eval(), codec, tokenizer
        self.sampling, self.frames, self.decoder, self.bf16_ears = sampling, frames, decoder, bf16_ears
        self._decoder_is_free = Lock()       # held while an answer uses `decoder`

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.bands.device

    def hear(self, wav_16k: Tensor) -> Tensor:
        """(N,) float32 at 16 kHz -> features (1, T, D)."""
        return self.ears.hear(wav_16k.to(self.device), self.bf16_ears)

    def ask(
        self,
        question: Tensor | str,
        task: Task | str = Task.A1A2,
        *,
        batch_parallel: bool = True,
        sampling: Sampling | None = None,
        seed: int = 0,
        limit: int | None = None,
        chunk_frames: int = 1,
    ) -> Iterator[Step]:
        """Stream an answer, step by step.

        Several answers may run at the same time, also in several threads. The first uses `decoder`; each answer that
        begins before its end gets a fresh decoder with the same weights and its own cache.

        question: for A1 tasks (N,) float32 at 16 kHz, or the features (1, T, D) from `hear`; for T1 tasks text
        sampling: None: the assistant's own
        limit:    frames (85 ms each) of a spoken answer, tokens of a written one; None: the assistant's own
        """
        task = Task(task)
        if task.hears != isinstance(question, Tensor):
            raise ValueError(f"{task} needs its question as {'sound' if task.hears else 'text'}.")
        features = question if isinstance(question, Tensor) else None
        if features is not None and features.ndim == 1:
            features = self.hear(features)
        text = self.tokenizer.encode(question).ids if isinstance(question, str) else None
        first = self._decoder_is_free.acquire(blocking=False)
        try:
            yield from generate(
                self.model,
                self.codec,
                task=task,
                features=features,
                text=text,
                batch_parallel=batch_parallel,
                sampling=sampling or self.sampling,
                seed=seed,
                limit=self.frames if limit is None else limit,
                chunk_frames=chunk_frames,
                decode_text=self.decode,
                decoder=self.decoder if first or self.decoder is None else self.decoder.fresh(),
            )
        finally:
            if first:
                self._decoder_is_free.release()

    def decode(self, tokens: Sequence[int]) -> str:
        """Token ids -> text, without the first word's leading space."""
        return self.tokenizer.decode(list(tokens)).removeprefix(" ")

    def answer(
        self,
        question: Tensor | str,
        task: Task | str = Task.A1A2,
        watch: Callable[[Step, float, float], None] | None = None,
        since: float | None = None,
        **how: Any,
    ) -> Reply:
        """The whole answer and its timing; other arguments as in `ask`.

        since: the end of the question by `perf_counter`; None: now
        watch: called after every step with the step, the ms since the question, the seconds of sound so far
        """
        return collect(self.ask(question, task, **how), perf_counter() if since is None else since, watch)

    def warm_up(self) -> None:
        """Answer one second of faint noise, so that the first real question does not include the set-up time."""
        generator = torch.Generator().manual_seed(0)
        self.answer(0.01 * torch.randn(16_000, generator=generator), limit=3)


def collect(steps: Iterable[Step], began: float, watch: Callable[[Step, float, float], None] | None = None) -> Reply:
    """A streamed answer as a whole, with its timing; see `Assistant.answer` for `watch`.

    began: the end of the question by `perf_counter`
    """
    reply, chunks = Reply(), list[np.ndarray]()
    for step in steps:
        reply.text += step.text
        reply.steps += 1
        if step.pcm is not None:
            if not chunks:
                reply.first_audio_ms = 1000 * (perf_counter() - began)
            chunks.append(step.pcm)
        reply.reason = step.reason or ""
        if watch is not None:
            watch(step, 1000 * (perf_counter() - began), sum(map(len, chunks)) / CODEC_RATE)
    reply.total_ms = 1000 * (perf_counter() - began)
    if chunks:
        reply.wav_24k = np.concatenate(chunks)
    return reply


def check_device(device: str) -> str:
    """Return the device, or raise a ValueError that lists the devices of this machine."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.split(":")[0], False):
        here = ", ".join(name for name, found in there.items() if found)
        raise ValueError(f"The device {device!r} is not available here: choose one of {here}.")
    return device
