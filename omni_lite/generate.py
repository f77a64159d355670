"""Talking while thinking: prefill, one step, sampling, and a loop that yields text and sound as they come.

    step           0    1    2   ...   7        8
    text row      t0   t1   t2         t7       t8
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
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from omni_lite.model import Cache, OmniModel
from omni_lite.streams import Rows, Task, prompt
from omni_lite.vocab import CODEC_RATE, NUM_STREAMS, Vocab


class CodecStream(Protocol):
    """What a codec's `stream()` returns: (1, 7, n) codes in, (1, 1, m) samples out, m may be 0."""

    def push(self, codes: Tensor) -> Tensor: ...

    def flush(self) -> Tensor: ...


class Codec(Protocol):
    """Anything that decodes piece by piece."""

    def stream(self) -> CodecStream: ...


SHORTEST_CHUNK = CODEC_RATE // 50             # samples: 20 ms


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits; temperature 0 takes the most likely one, as the release does.

    top_k: only the k most likely (0: all); top_p: only the most likely that together reach p.
    guidance: how far the voice is led away from what it would say if it could not read the text row, for TTS adapters
        that read it: 1 not at all, 2 as far again as reading leads it. Costs a second row of the TTS blocks.
        Source: classifier-free guidance, arXiv 2207.12598; see `Phase.unread` of train.py
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
    text_token: the answer's token, or None where the text row is silent (eot included)
    text_id:    the id in the text row, whatever it is
    text:       what this step adds to the readable answer; may be "" while a character is incomplete
    tokens:     (7,) int64 ids of the seven streams at this step, still delayed; None for a written answer
    pcm:        (m,) float32 samples at 24 kHz that became ready, or None
    reason:     None, or in the last step why it is the last: "end" or "length"
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


# --- the model's two ways of working --------------------------------------------------------------------


@dataclass
class Logits:
    """Of one next step: text (V_text,) and audio (7, V_audio); None where nobody asked.

    unread: (7, V_audio) of the voice that cannot read the text row, where it was asked for, see `Sampling.guidance`
    """

    text: Tensor | None
    audio: Tensor | None
    unread: Tensor | None = None


def prefill(
    model: OmniModel,
    question: Rows,
    features: Tensor | None = None,
    *,
    speaks: bool,
    batch_parallel: bool = False,
    unread: bool = False,
) -> tuple[Cache, Logits]:
    """Run the whole question at once; the logits are those of the answer's step 0.

    batch_parallel: the same question as two rows, of which row 0 announces a spoken answer and row 1 a
    written one. They differ in the last step's audio ids alone (answer_a against pad_a), so the rest
    is run once, as one row, and its cache copied.
    unread: the TTS blocks run two rows, of which the second does not see the text row
    """
    x = model.embed(question.text[None], question.audio[None], features)        # (1, P, D)
    cache = model.new_cache()
    wanted = dict(speaks=speaks, writes=True, unread=unread)
    if not batch_parallel:
        return cache, _logits(model, model.run(x, cache), question.text[None], cache, **wanted)
    hidden = model.run(x[:, :-1], cache)                                        # (1, P - 1, D)
    _speak(model, hidden, cache, question.text[None, :-1], unread)              # for its keys and values
    cache.expand(2)
    silent = torch.full_like(question.audio[:, -1:], model.config.vocab.pad_a)  # (7, 1)
    written = model.embed(question.text[None, -1:], silent[None])
    last = torch.cat([x[:, -1:], written])                                      # (2, 1, D)
    return cache, _logits(model, model.run(last, cache), question.text[None, -1:], cache, **wanted)


def decode_step(
    model: OmniModel,
    cache: Cache,
    text_id: int,
    audio_ids: Sequence[int] | None,
    *,
    writes: bool = True,
    batch_parallel: bool = False,
    unread: bool = False,
) -> Logits:
    """Feed one step of the answer, get the logits of the next.

    audio_ids:      7 ids as they lie in the delayed rows, or None for a written answer (no audio logits)
    writes:         whether text logits are wanted (not after eot)
    batch_parallel: the cache holds two rows; both get the text, and only row 0 gets the audio
    unread:         the cache of the TTS blocks holds two rows, see `prefill`
    """
    vocab, device = model.config.vocab, model.bands.device
    silent = [vocab.pad_a] * NUM_STREAMS
    rows = [silent if audio_ids is None else list(audio_ids)] + [silent] * batch_parallel
    ids = torch.tensor([[*audio, text_id] for audio in rows]).to(device)        # (1 or 2, 8)
    x = model.embed(ids[:, -1:], ids[:, :-1, None])
    speaks = audio_ids is not None
    return _logits(model, model.run(x, cache), ids[:1, -1:], cache, speaks=speaks, writes=writes, unread=unread)


def _logits(model: OmniModel, hidden: Tensor, text_ids: Tensor, cache: Cache, *, speaks: bool, writes: bool,
            unread: bool) -> Logits:
    """Heads only where needed: the last step; audio from row 0, text from the last row.

    hidden: (1 or 2, S, D) of the newest steps; text_ids: (1, S) of their text row
    """
    text = model.text_logits(hidden[-1, -1]) if writes else None
    if not speaks:
        return Logits(text, None)
    audio = model.audio_head(_speak(model, hidden[:1], cache, text_ids, unread)[:, -1])    # (1 or 2, 7, V_audio)
    return Logits(text, audio[0], audio[1] if unread else None)


def _speak(model: OmniModel, hidden: Tensor, cache: Cache, text_ids: Tensor, unread: bool) -> Tensor:
    """The TTS blocks on row 0: (1, S, D) -> (1, S, D), or (2, S, D) with a second row that sees no text."""
    if not unread:
        return model.speak(hidden, cache, text_ids)
    hidden_from = torch.full_like(text_ids, model.config.vocab.pad_t)
    return model.speak(hidden.expand(2, -1, -1), cache, torch.cat([text_ids, hidden_from]))


class Decoder(Protocol):
    """What `generate` asks of a model: run a question, then one step at a time. One conversation at a time.

    context: positions there are for the question and the answer together
    """

    @property
    def context(self) -> int: ...

    def prefill(
        self, question: Rows, features: Tensor | None, *, speaks: bool, batch_parallel: bool, unread: bool = False
    ) -> Logits:
        """`unread` holds for all steps that follow."""
        ...

    def step(self, text_id: int, audio_ids: Sequence[int] | None, *, writes: bool) -> Logits:
        """The first step that does not write ends the second row of a batch-parallel conversation."""
        ...


class SlowDecoder:
    """The readable `Decoder`: `prefill` and `decode_step` as they stand above, for any trunk."""

    def __init__(self, model: OmniModel) -> None:
        self.model = model
        self.context: int = getattr(model.trunk.config, "max_position_embeddings", None) or 2048
        self.cache: Cache | None = None
        self.two_rows = self.unread = False

    def prefill(
        self, question: Rows, features: Tensor | None, *, speaks: bool, batch_parallel: bool, unread: bool = False
    ) -> Logits:
        """As the function; the cache is kept here."""
        self.two_rows, self.unread = batch_parallel, unread
        self.cache, logits = prefill(self.model, question, features, speaks=speaks, batch_parallel=batch_parallel,
                                     unread=unread)
        return logits

    def step(self, text_id: int, audio_ids: Sequence[int] | None, *, writes: bool) -> Logits:
        """As `decode_step`."""
        assert self.cache is not None, "prefill comes first"
        if self.two_rows and not writes:        # all is written: the second row has done its work
            self.cache.keep(0)
            self.two_rows = False
        return decode_step(self.model, self.cache, text_id, audio_ids, writes=writes, batch_parallel=self.two_rows,
                           unread=self.unread)


# --- choosing tokens --------------------------------------------------------------------------------------


def sample(
    logits: Tensor,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one id from each row: (..., V) -> (...) int64. Ids at -inf are never drawn."""
    if temperature <= 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        order = logits.sort(dim=-1, descending=True)
        before = order.values.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)   # mass of the likelier ones
        before[..., 0] = 0
        dropped = (before >= top_p).scatter(-1, order.indices, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    # argmax of p / Exp(1) is distributed as p, and needs no wait for the device (pytorch-labs/gpt-fast)
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits.softmax(dim=-1) / noise).argmax(dim=-1)


def choose(
    vocab: Vocab, logits: Logits, how: Sampling, generator: torch.Generator | None = None, any_id: bool = False
) -> tuple[int, list[int]]:
    """One text id and seven audio ids, on the host; no id that has no place in an answer.

    The text row may say a token or eot; for the streams see `sayable`.
    Returns pad_t, or pads, where there are no logits.
    any_id: all V_text and V_audio ids may be said, as in the release
    """
    chosen = []
    if logits.text is not None:
        allowed = logits.text if any_id else logits.text[: vocab.eot + 1]
        chosen.append(sample(allowed, how.text_temperature, how.top_k, how.top_p, generator)[None])
    if logits.audio is not None:
        allowed = logits.audio
        if logits.unread is not None:
            allowed = logits.unread.lerp(allowed, how.guidance)
        if not any_id:
            allowed = sayable(vocab, allowed)
        chosen.append(sample(allowed, how.audio_temperature, how.top_k, how.top_p, generator))
    ids = torch.cat(chosen).tolist()                                            # the step's one wait
    text = ids.pop(0) if logits.text is not None else vocab.pad_t
    return text, ids or [vocab.pad_a] * NUM_STREAMS


def sayable(vocab: Vocab, audio: Tensor) -> Tensor:
    """Logits of the seven streams (..., 7, V_audio) -> (..., 7, eoa + 1), -inf for what has no place in an answer.

    Stream 0 may say a codebook entry or eoa; the streams after it only codebook entries, since they complete frames
    that stream 0 has already begun.
    """
    allowed = audio[..., : vocab.eoa + 1].clone()
    allowed[..., 1:, vocab.eoa] = -torch.inf
    return allowed


# --- what the loop keeps ----------------------------------------------------------------------------------


@dataclass
class Delay:
    """The delay seen from the speaking side: which stream says what at this step, and when all is said.

    limit:  frames after which the answer is cut
    said:   (steps, 7) ids so far, as they lie in the delayed rows
    frames: T of the answer, once stream 0 has ended it
    """

    vocab: Vocab
    limit: int
    said: list[list[int]] = field(default_factory=list)
    frames: int | None = None
    cut: bool = False

    def place(self, drawn: Sequence[int]) -> list[int]:
        """What the seven streams say at the next step, given the ids drawn for it.

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
        first = len(self.said) - NUM_STREAMS    # the step where stream 0 said this frame's token
        return None if first < 1 else [self.said[first + i][i] for i in range(NUM_STREAMS)]

    @property
    def done(self) -> bool:
        """Every frame before the end is complete."""
        return self.frames is not None and (self.frames == 0 or len(self.said) >= self.frames + NUM_STREAMS)


class Undelayed(Delay):
    """The release's way: every id is said as it was drawn, and stream 6 ends the answer.

    Where the model has learnt its part well, this and `Delay` say the same codes. They differ by design:
        stream i before step i + 1     as drawn; `Delay` says pad_a
        an id that is no codebook entry    said; `choose` draws none but eoa, and eoa in stream 0 only
        end                            eoa in stream 6 after step 0; `Delay` ends where stream 0 does, so that
                                       no stream of the last frame is lost or goes on
        after a stream's end           as drawn until stream 6 ends; `Delay` says eoa once, then pad_a
    The release feeds a frame with special ids to its codec all the same; here it is not played.

    Source: gpt-omni/mini-omni litgpt/generate/base.py::generate_TA_BATCH
    """

    def place(self, drawn: Sequence[int]) -> list[int]:
        """The same ids; ends with eoa in stream 6, or when the last frame before the limit is complete."""
        self.said.append(list(drawn))
        frames = len(self.said) - NUM_STREAMS                  # complete ones
        if len(self.said) > 1 and drawn[-1] == self.vocab.eoa:
            self.frames = max(0, frames - 1)                   # this step completes the end, no frame
        elif frames == self.limit:
            self.frames, self.cut = frames, True
        return list(drawn)

    def frame(self) -> list[int] | None:
        """The frame that the latest step completed, if it is one."""
        frame = super().frame()
        return None if frame is None or max(frame) >= self.vocab.codebook else frame

    @property
    def done(self) -> bool:
        """The end was said, or the limit reached."""
        return self.frames is not None


class Voice:
    """Frames in, sound out, `chunk_frames` at a time.

    A chunk of less than 20 ms waits for the next one: LiteSNAC's first frame gives 5 ms, and a player
    that started with those would stand still before the second frame came.
    """

    def __init__(self, codec: Codec | None, chunk_frames: int) -> None:
        self.stream = None if codec is None else codec.stream()
        self.device = next(codec.parameters()).device if isinstance(codec, nn.Module) else torch.device("cpu")
        self.chunk_frames = chunk_frames
        self.silent = True                      # nothing pushed yet
        self.waiting: list[list[int]] = []
        self.short: list[np.ndarray] = []       # samples that wait for company

    def add(self, frame: list[int] | None, last: bool) -> np.ndarray | None:
        """Take the frame of this step, if it completed one; return the samples that became ready, if any."""
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
    """Tokens in, readable text out; a character whose bytes are still incomplete waits."""

    def __init__(self, decode_text: Callable[[list[int]], str] | None) -> None:
        self.decode = decode_text
        self.tokens: list[int] = []
        self.shown = ""

    def add(self, token: int | None, last: bool) -> str:
        """Take this step's token, if there is one; return what can be read beyond the text shown so far."""
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
    as_release: bool = False,
    decoder: Decoder | None = None,
) -> Generator[Step, None, None]:
    """Answer one question, yielding every step as soon as it is known. Closing the generator stops the model.

    codec:          turns complete frames into sound; None: tokens only
    features:       (1, T, D_ear) of the encoder, for the tasks that hear (A1..)
    text:           the question's tokens, for the tasks that read (T1..)
    batch_parallel: for the tasks that speak, let a second row that only writes think out the text
    limit:          frames of a spoken answer, or tokens of a written one; never beyond the trunk's positions
    chunk_frames:   frames given to the codec at once; 1 gives the earliest sound
    decode_text:    tokens -> string, such as a tokenizer's decode; None: every `Step.text` is ""
    as_release:     choose, feed and end as the released code does, id for id: any id may be said (see
                    `Undelayed`), and eot as the very first text id does not end the text. The last step
                    of a spoken answer, which ends it, and the eot of a written one are not in the release's lists
    decoder:        runs this model, such as `fast.FastDecoder(model)`; None: the readable `SlowDecoder`
    """
    task = Task(task)
    vocab, device = model.config.vocab, model.bands.device
    positions = None if features is None else model.asr_adapter.num_positions(features.shape[1])
    question = prompt(vocab, task, text=text, positions=positions)
    decoder = decoder or SlowDecoder(model)
    context = decoder.context
    room = context - len(question) - (NUM_STREAMS - 1 if task.speaks else -1) - as_release
    if room < 1:
        raise ValueError(f"The question fills {len(question)} of {context} steps: no room to answer.")
    limit = room if limit is None else min(limit, room)
    if limit < 1:
        raise ValueError(f"limit must leave room for an answer, got {limit}.")
    delay, writer = (Undelayed if as_release else Delay)(vocab, limit), Writer(decode_text)
    voice = Voice(codec if task.speaks else None, chunk_frames)
    generator = torch.Generator(device).manual_seed(seed)

    two_rows = batch_parallel and task.speaks
    unread = task.speaks and sampling.guidance != 1 and getattr(model.tts_adapter, "text", None) is not None
    question = Rows(question.text.to(device), question.audio.to(device))
    features = None if features is None else features.to(device)
    logits = decoder.prefill(question, features, speaks=task.speaks, batch_parallel=two_rows, unread=unread)
    writing = True
    for index in count():
        text_id, audio_ids = choose(vocab, logits, sampling, generator, any_id=as_release)
        token = text_id if text_id < vocab.text_base else None
        writing = writing and (text_id != vocab.eot or (as_release and index == 0))
        if task.speaks:
            audio_ids = delay.place(audio_ids)
            reason = ("length" if delay.cut else "end") if delay.done else None
        else:
            reason = "end" if not writing else "length" if index + 1 == limit else None
        last = reason is not None
        yield Step(
            index=index,
            text_token=token,
            text_id=text_id,
            text=writer.add(token, last),
            tokens=np.array(audio_ids) if task.speaks else None,
            pcm=voice.add(delay.frame(), last),
            reason=reason,
        )
        if last:
            return
        logits = decoder.step(text_id, audio_ids if task.speaks else None, writes=writing)
