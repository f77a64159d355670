"""Talking while thinking: a loop that yields text with its sound, step by step.

    step           0    1    2   ...   7        8
    text          t0   t1   t2         t7       t8
    stream 0           a0   a1         a6       a7
    stream 1                b0         b5       b6
    ...
    stream 6                           g0       g1
    complete                           frame 0  frame 1   -> codec -> 85 ms of sound each

Sources: arXiv 2408.16725, section 3.2; gpt-omni/mini-omni litgpt/generate/base.py::generate_TA_BATCH.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from omni_lite.codec import CodecStream
from omni_lite.model import OmniModel
from omni_lite.streams import Streams, Task, prompt
from omni_lite.vocab import CODEC_RATE, NUM_STREAMS, Vocab

SHORTEST_CHUNK = CODEC_RATE // 50             # samples: 20 ms


class Codec(Protocol):
    """Anything that decodes frame by frame."""

    def stream(self) -> CodecStream: ...


@dataclass(frozen=True)
class Sampling:
    """How to draw a token from logits; temperature 0 takes the most likely one, as the release does.

    top_k: only the k most likely (0: all); top_p: only the most likely that together reach p.
    guidance: scale of classifier-free guidance for TTS adapters that read the text stream. 1 is none; 2 doubles
        the difference that reading makes. It adds a second batch row to the TTS blocks.
        Source: arXiv 2207.12598
    """

    text_temperature: float = 0.0
    audio_temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0


@dataclass
class Step:
    """One step of the model, as `generate` yields it.

    index:      0, 1, 2, ... of the answer
    text_token: the answer's token, or None where the text stream holds a special token
    text_id:    the id in the text stream, special or not
    text:       what this step adds to the readable answer; "" while a character is incomplete
    tokens:     (7,) int64 ids of the audio streams at this step, still delayed; None for a written answer
    pcm:        (m,) float32 samples at 24 kHz that became ready, or None
    reason:     why this step is the last, "end" or "length"; None for all others
    """

    index: int
    text_token: int | None
    text_id: int
    text: str
    tokens: np.ndarray | None
    pcm: np.ndarray | None
    reason: str | None

    @property
    def done(self) -> bool:
        """No step follows."""
        return self.reason is not None


# --- running the model ----------------------------------------------------------------------------------


@dataclass
class Logits:
    """Of the next step: text (V_text,), audio (7, V_audio); None where they are not needed.

    unconditional: (7, V_audio) of TTS blocks that cannot read the text stream, for `Sampling.guidance`
    """

    text: Tensor | None
    audio: Tensor | None
    unconditional: Tensor | None = None


class Decoder(Protocol):
    """What `generate` asks of a model: run a question, then one step at a time; one conversation at a time.

    context: positions for the question and the answer together
    """

    @property
    def context(self) -> int: ...

    def prefill(
        self, question: Streams, features: Tensor | None, *, speaks: bool, batch_parallel: bool,
        unconditional: bool = False,
    ) -> Logits:
        """Run the whole question; the logits are those of the answer's step 0.

        features:       (1, T, D_ear) of the encoder, for the tasks that hear
        batch_parallel: run the question as two batch rows; row 0 asks for a spoken answer, row 1 for a written one
        unconditional:  in every step give the TTS blocks a second batch row, which cannot read the text stream
        """
        ...

    def step(self, text_id: int, audio_ids: Sequence[int] | None, *, writes: bool) -> Logits:
        """Feed one step of the answer; the logits are those of the next.

        audio_ids: the 7 delayed ids, or None for a written answer
        writes:    whether the text still goes on; the first step without it ends batch row 1
        """
        ...

    def fresh(self) -> "Decoder":
        """The same model with an empty cache, for a second conversation at the same time."""
        ...


class SlowDecoder:
    """The readable `Decoder`, for any trunk: it calls the model's own layers."""

    def __init__(self, model: OmniModel) -> None:
        self.model, self.cache = model, model.new_cache()
        self.context: int = getattr(model.trunk.config, "max_position_embeddings", None) or 2048
        self.batch_parallel = self.unconditional = False

    def fresh(self) -> "SlowDecoder":
        """Another decoder of the same model."""
        return SlowDecoder(self.model)

    def prefill(
        self, question: Streams, features: Tensor | None = None, *, speaks: bool, batch_parallel: bool = False,
        unconditional: bool = False,
    ) -> Logits:
        """As `Decoder.prefill`. The two batch rows differ only in the last step's audio ids."""
        model, self.cache = self.model, self.model.new_cache()
        self.batch_parallel, self.unconditional = batch_parallel, unconditional
        text, audio = question.text[None], question.audio[None]
        x = model.embed(text, audio, features)                                  # (1, P, D)
        if batch_parallel:                      # run what the rows share once, then copy the cache
            self._speak(model.run(x[:, :-1], self.cache), text[:, :-1])         # fills the TTS blocks' cache
            self.cache.expand(2)
            text, silent = text[:, -1:], torch.full_like(audio[..., -1:], model.config.vocab.pad_a)
            x = torch.cat([x[:, -1:], model.embed(text, silent)])               # (2, 1, D)
        return self._logits(x, text, speaks, writes=True)

    def step(self, text_id: int, audio_ids: Sequence[int] | None, *, writes: bool = True) -> Logits:
        """As `Decoder.step`. Both batch rows get the text, only row 0 gets the audio."""
        if self.batch_parallel and not writes:
            self.cache.keep(0)
            self.batch_parallel = False
        silent = [self.model.config.vocab.pad_a] * NUM_STREAMS
        rows = [silent if audio_ids is None else audio_ids] + [silent] * self.batch_parallel
        ids = torch.tensor([[*audio, text_id] for audio in rows]).to(self.model.bands.device)   # (1 or 2, 8)
        x = self.model.embed(ids[:, -1:], ids[:, :-1, None])
        return self._logits(x, ids[:1, -1:], speaks=audio_ids is not None, writes=writes)

    def _logits(self, x: Tensor, text_ids: Tensor, speaks: bool, writes: bool) -> Logits:
        """The trunk on inputs (1 or 2, S, D), the heads on its last step: audio of row 0, text of the last row."""
        hidden = self.model.run(x, self.cache)
        text = self.model.text_logits(hidden[-1, -1]) if writes else None
        if not speaks:
            return Logits(text, None)
        audio = self.model.audio_head(self._speak(hidden[:1], text_ids)[:, -1])                 # (1 or 2, 7, V_audio)
        return Logits(text, *audio.unbind())

    def _speak(self, hidden: Tensor, text_ids: Tensor) -> Tensor:
        """The TTS blocks on batch row 0: (1, S, D) -> (1, S, D), or (2, S, D) with the unconditional one."""
        if self.unconditional:
            hidden = hidden.expand(2, -1, -1)
            text_ids = torch.cat([text_ids, torch.full_like(text_ids, self.model.config.vocab.pad_t)])
        return self.model.speak(hidden, self.cache, text_ids)


# --- choosing tokens --------------------------------------------------------------------------------------


def sample(
    logits: Tensor, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw ids from logits: (..., V) -> (...) int64. An id at -inf is never drawn."""
    if temperature <= 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        order = logits.sort(dim=-1, descending=True)
        before = order.values.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)   # mass of more likely ids
        before[..., 0] = 0
        dropped = (before >= top_p).scatter(-1, order.indices, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    # argmax of p / Exp(1) has the distribution p, without a wait for the device (pytorch-labs/gpt-fast)
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits.softmax(dim=-1) / noise).argmax(dim=-1)


def choose(
    vocab: Vocab, logits: Logits, how: Sampling, generator: torch.Generator | None = None, any_id: bool = False
) -> tuple[int, list[int]]:
    """Draw one text id and seven audio ids; without logits the result is pad_t, or seven pad_a.

    Only ids that have a place in an answer can be drawn. The text stream may say a token or eot, stream 0 a code or
    eoa. The other streams may say only codes, since they complete frames that stream 0 has begun.

    any_id: all V_text and V_audio ids can be drawn, as in the release
    """
    chosen = []
    if logits.text is not None:
        allowed = logits.text if any_id else logits.text[: vocab.eot + 1]
        chosen.append(sample(allowed, how.text_temperature, how.top_k, how.top_p, generator)[None])
    if logits.audio is not None:
        allowed = logits.audio
        if logits.unconditional is not None:
            allowed = logits.unconditional.lerp(allowed, how.guidance)
        if not any_id:
            allowed = allowed[..., : vocab.eoa + 1].clone()
            allowed[1:, vocab.eoa] = -torch.inf
        chosen.append(sample(allowed, how.audio_temperature, how.top_k, how.top_p, generator))
    ids = torch.cat(chosen).tolist()                                            # the step's one wait for the device
    text = ids.pop(0) if logits.text is not None else vocab.pad_t
    return text, ids or [vocab.pad_a] * NUM_STREAMS


# --- state of the loop --------------------------------------------------------------------------------------


@dataclass
class Delay:
    """The delay while the model answers: each stream's id at this step, and where the answer ends.

    limit:  frames after which the answer is cut
    said:   (steps, 7) ids so far, delayed
    frames: T of the answer, once stream 0 has ended it

    A subclass can change the rules, as `interop.release_decoding.ReleaseDelay` does:
    any_id: as in `choose`;  spare: positions that an answer leaves free at the end of the context
    """

    vocab: Vocab
    limit: int
    said: list[list[int]] = field(default_factory=list)
    frames: int | None = None
    cut: bool = False
    any_id: ClassVar[bool] = False
    spare: ClassVar[int] = 0

    def ends_text(self, step: int, text_id: int) -> bool:
        """Whether the text ends with this id."""
        return text_id == self.vocab.eot

    def place(self, drawn: Sequence[int]) -> list[int]:
        """The ids of the seven streams at the next step, given those drawn for it.

        Stream i is at frame step - i - 1: silent before frame 0, eoa at frame T, silent after it.
        """
        step = len(self.said)
        frame = step - 1                        # of stream 0, which alone decides where the answer ends
        if self.frames is None and frame >= 0 and (drawn[0] == self.vocab.eoa or frame == self.limit):
            self.frames, self.cut = frame, drawn[0] != self.vocab.eoa
        tokens = []
        for i, token in enumerate(drawn):
            frame = step - i - 1
            if frame < 0 or (self.frames is not None and frame > self.frames):
                token = self.vocab.pad_a
            elif frame == self.frames:
                token = self.vocab.eoa
            tokens.append(token)
        self.said.append(tokens)
        return tokens

    def frame(self) -> list[int] | None:
        """The frame that the latest step completed: step s ends frame s - 7."""
        first = len(self.said) - NUM_STREAMS    # the step of this frame's stream 0
        return None if first < 1 else [self.said[first + i][i] for i in range(NUM_STREAMS)]

    @property
    def done(self) -> bool:
        """Every frame before the end is complete."""
        return self.frames is not None and (self.frames == 0 or len(self.said) >= self.frames + NUM_STREAMS)


class Voice:
    """Frames in, sound out, `chunk_frames` at a time.

    A chunk of less than 20 ms waits for the next one. LiteSNAC's first frame gives only 5 ms: a player
    that started with them would stop before the second frame came.
    """

    def __init__(self, codec: Codec | None, chunk_frames: int) -> None:
        self.stream = None if codec is None else codec.stream()
        self.device = next(codec.parameters()).device if isinstance(codec, nn.Module) else torch.device("cpu")
        self.chunk_frames = chunk_frames
        self.silent = True                      # nothing pushed yet
        self.waiting: list[list[int]] = []
        self.short: list[np.ndarray] = []       # chunks too short to play

    def add(self, frame: list[int] | None, last: bool) -> np.ndarray | None:
        """Take the frame that this step completed, if any; return the samples that became ready, if any."""
        if self.stream is None:
            return None
        if frame is not None:
            self.waiting.append(frame)
        pieces = []
        if self.waiting and (last or len(self.waiting) >= self.chunk_frames):
            codes = torch.tensor(self.waiting, device=self.device).T[None]      # (1, 7, n)
            pieces.append(self.stream.push(codes))                              # (1, 1, m)
            self.waiting, self.silent = [], False
        if last and not self.silent:
            pieces.append(self.stream.flush())
        self.short += [piece[0, 0].float().cpu().numpy() for piece in pieces if piece.shape[-1]]
        if not self.short or (not last and sum(map(len, self.short)) < SHORTEST_CHUNK):
            return None
        pcm, self.short = np.concatenate(self.short), []
        return pcm


class Writer:
    """Tokens in, readable text out; a character waits until all its bytes are there."""

    def __init__(self, decode_text: Callable[[list[int]], str] | None) -> None:
        self.decode = decode_text
        self.tokens: list[int] = []
        self.shown = ""

    def add(self, token: int | None, last: bool) -> str:
        """Take this step's token, if any; return the text that it adds."""
        if token is not None:
            self.tokens.append(token)
        text = "" if self.decode is None else self.decode(self.tokens)
        if text.endswith("\ufffd") and not last:
            return ""
        new, self.shown = text[len(self.shown) :], text
        return new


# --- the loop -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def generate(
    model: OmniModel,
    codec: Codec | None,
    *,
    task: Task | str,
    features: Tensor | None = None,
    text: Sequence[int] | None = None,
    batch_parallel: bool = True,
    sampling: Sampling = Sampling(),
    seed: int = 0,
    limit: int | None = None,
    chunk_frames: int = 1,
    decode_text: Callable[[list[int]], str] | None = None,
    delay: type[Delay] = Delay,
    decoder: Decoder | None = None,
) -> Generator[Step, None, None]:
    """Answer one question; yield every step as soon as it is known. Closing the generator stops the model.

    codec:          turns complete frames into sound; None: tokens only
    features:       (1, T, D_ear) of the encoder, for the tasks that hear (A1..)
    text:           the question's tokens, for the tasks that read (T1..)
    batch_parallel: for the tasks that speak, take the text from a second batch row, which only writes
    limit:          frames of a spoken answer, or tokens of a written one; never beyond the trunk's positions
    chunk_frames:   frames given to the codec at once; 1 gives the earliest sound
    decode_text:    tokens -> string, such as a tokenizer's decode; None: every `Step.text` is ""
    delay:          the rules of an answer, such as `interop.release_decoding.ReleaseDelay`
    decoder:        runs this model, such as `fast.FastDecoder(model)`; None: the readable `SlowDecoder`
    """
    task = Task(task)
    vocab, device = model.config.vocab, model.bands.device
    positions = None if features is None else model.asr_adapter.num_positions(features.shape[1])
    question = prompt(vocab, task, text=text, positions=positions)
    decoder = decoder or SlowDecoder(model)
    room = decoder.context - len(question) - (NUM_STREAMS - 1 if task.speaks else -1) - delay.spare
    if room < 1:
        raise ValueError(f"The question fills {len(question)} of {decoder.context} steps: no room to answer.")
    limit = room if limit is None else min(limit, room)
    if limit < 1:
        raise ValueError(f"limit must leave room for an answer, got {limit}.")
    answer, writer = delay(vocab, limit), Writer(decode_text)
    voice = Voice(codec if task.speaks else None, chunk_frames)
    generator = torch.Generator(device).manual_seed(seed)

    guided = task.speaks and sampling.guidance != 1 and getattr(model.tts_adapter, "text", None) is not None
    question = Streams(question.text.to(device), question.audio.to(device))
    features = None if features is None else features.to(device)
    logits = decoder.prefill(question, features, speaks=task.speaks, batch_parallel=batch_parallel and task.speaks,
                             unconditional=guided)
    writing = True
    for index in count():
        text_id, audio_ids = choose(vocab, logits, sampling, generator, answer.any_id)
        token = text_id if text_id < vocab.text_base else None
        writing = writing and not answer.ends_text(index, text_id)
        if task.speaks:
            audio_ids = answer.place(audio_ids)
            reason = ("length" if answer.cut else "end") if answer.done else None
        else:
            reason = "end" if not writing else "length" if index + 1 == limit else None
        last = reason is not None
        yield Step(index=index, text_token=token, text_id=text_id, text=writer.add(token, last), reason=reason,
                   tokens=np.array(audio_ids) if task.speaks else None, pcm=voice.add(answer.frame(), last))
        if last:
            return
        logits = decoder.step(text_id, audio_ids if task.speaks else None, writes=writing)
