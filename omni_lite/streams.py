"""The layout of a sequence: seven delayed audio streams beside one text stream, for each of the five tasks.

Everything here is plain integer tensors; no model is involved. A sequence always has eight streams:

    0..6   audio: the seven codes of the codec's frame
    7      text, one step ahead of audio stream 0

Sources: arXiv 2408.16725, section 3; gpt-omni/mini-omni inference.py::get_input_ids_*.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

import torch
from torch import Tensor

from omni_lite.vocab import NUM_STREAMS, Vocab

IGNORE = -100  # a target that carries no loss (cross_entropy's own default)


class Task(StrEnum):
    """The question (A1 speech, T1 text), then the answer (A2 speech and text, T2 text, T1 transcript)."""

    A1A2 = "A1A2"
    A1T2 = "A1T2"
    A1T1 = "A1T1"
    T1A2 = "T1A2"
    T1T2 = "T1T2"

    @property
    def hears(self) -> bool:
        """The question is speech: the ASR adapter fills positions, the text stream is silent."""
        return self.value.startswith("A1")

    @property
    def speaks(self) -> bool:
        """The answer has seven audio streams beside its text."""
        return self.value.endswith("A2")


TASKS = tuple(Task)


# --- delay, layer shift ---------------------------------------------------------------------------------


def delay_streams(codes: Tensor, pad_id: int) -> Tensor:
    """Delay the 7 audio streams: stream q starts q + 1 steps after the text.

    Step s holds code s - q - 1 of stream q. So when the model predicts stream q of a frame,
    it already knows that frame's streams 0..q-1.

    codes:   (..., 7, T) int64; 1 frame = 2048 samples = 85.3 ms at 24 kHz
    returns: (..., 7, T + 7) int64, `pad_id` where a stream is silent

    3 streams, T = 2, "." = pad:    a b        . a b . .
                                    c d   ->   . . c d .
                                    e f        . . . e f

    Source: arXiv 2408.16725, section 3; inverse of gpt-omni/mini-omni utils/snac_utils.py::reconscruct_snac.
    """
    *batch, Q, T = codes.shape
    assert Q == NUM_STREAMS, f"expected {NUM_STREAMS} streams, got {Q}"
    delayed = codes.new_full((*batch, Q, T + Q), pad_id)
    for q in range(Q):
        delayed[..., q, q + 1 : q + 1 + T] = codes[..., q, :]
    return delayed


def undelay_streams(delayed: Tensor) -> Tensor:
    """Align the streams into frames again, the inverse of `delay_streams`.

    delayed: (..., 7, S) int64, S >= 7
    returns: (..., 7, S - 7) int64, the frames that a codec decodes
    """
    *_, Q, S = delayed.shape
    assert Q == NUM_STREAMS, f"expected {NUM_STREAMS} streams, got {Q}"
    assert S >= Q, f"{S} steps hold no complete frame: stream {Q - 1} starts at step {Q}"
    T = S - Q
    return torch.stack([delayed[..., q, q + 1 : q + 1 + T] for q in range(Q)], dim=-2)


def shift_audio(vocab: Vocab, audio: Tensor) -> Tensor:
    """Layer shift: (..., 7, S) ids of each stream, 0 .. V_audio - 1, to ids in the release's one table."""
    return audio + _first_ids(vocab, audio.device)


def unshift_audio(vocab: Vocab, shifted: Tensor) -> Tensor:
    """The inverse of `shift_audio`."""
    return shifted - _first_ids(vocab, shifted.device)


def _first_ids(vocab: Vocab, device: torch.device) -> Tensor:
    """(7, 1): where each stream's ids begin in the one table."""
    return torch.tensor([[vocab.shift(0, stream)] for stream in range(NUM_STREAMS)], device=device)


# --- question and answer ----------------------------------------------------------------------------------


@dataclass
class Streams:
    """Eight aligned streams of ids: text (S,), audio (7, S), both int64, audio before the layer shift."""

    text: Tensor
    audio: Tensor

    def __len__(self) -> int:
        return self.text.shape[-1]


def prompt(
    vocab: Vocab, task: Task | str, *, text: Sequence[int] | None = None, positions: int | None = None
) -> Streams:
    """The question in eight streams; the special tokens of the last step name the kind of answer.

    text:      the question's tokens, for the tasks that read (T1..)
    positions: T, how many steps the ASR adapter fills, for the tasks that hear (A1..). There the audio
               streams hold pad_a at steps 1..T, and `OmniModel.embed` puts the adapter's output in their place

    A1A2   audio   input_a  pad_a * T  eoa  answer_a        (A1T2, A1T1: pad_a in the last place)
           text    input_t  pad_t * T  eot  answer_t        (A1T1: asr in the last place)
    T1A2   audio   pad_a    pad_a * n  pad_a  answer_a      (T1T2: pad_a in the last place)
           text    input_t  text       eot    answer_t

    Source: gpt-omni/mini-omni inference.py::get_input_ids_whisper, get_input_ids_TA, get_input_ids_TT.
    """
    task = Task(task)
    if task.hears:
        if positions is None or text is not None:
            raise ValueError(f"{task} hears its question: give positions=, and no text=.")
        first_a, last_a = vocab.input_a, vocab.eoa
        middle = [vocab.pad_t] * positions
    else:
        if text is None or positions is not None:
            raise ValueError(f"{task} reads its question: give text=, and no positions=.")
        first_a, last_a = vocab.pad_a, vocab.pad_a
        middle = _checked_text(vocab, text)
    kind_t = vocab.asr if task is Task.A1T1 else vocab.answer_t
    kind_a = vocab.answer_a if task.speaks else vocab.pad_a
    text_ids = torch.tensor([vocab.input_t, *middle, vocab.eot, kind_t])
    audio_ids = torch.tensor([first_a, *[vocab.pad_a] * len(middle), last_a, kind_a])
    return Streams(text=text_ids, audio=audio_ids.expand(NUM_STREAMS, -1).clone())


def answer(vocab: Vocab, text: Sequence[int], codes: Tensor | None = None) -> Streams:
    """The answer in eight streams, as long as its longest stream.

    text:  the answer's tokens
    codes: (7, T) codec ids of the spoken answer, or None for a written one

    Text: tokens, eot, then pad_t. Audio stream i: pad_a * (i + 1), codes, eoa, then pad_a.
    """
    tokens = [*_checked_text(vocab, text), vocab.eot]
    if codes is None:
        return Streams(text=torch.tensor(tokens), audio=torch.full((NUM_STREAMS, len(tokens)), vocab.pad_a))
    Q, T = codes.shape
    assert Q == NUM_STREAMS, f"expected {NUM_STREAMS} streams, got {Q}"
    if T and (int(codes.min()) < 0 or int(codes.max()) >= vocab.codebook):
        raise ValueError(f"codec ids must lie in 0..{vocab.codebook - 1}: are these shifted already?")
    ended = torch.cat([codes.long(), torch.full((Q, 1), vocab.eoa)], dim=1)     # (7, T + 1)
    delayed = delay_streams(ended, vocab.pad_a)                                 # (7, T + 8)
    S = max(len(tokens), delayed.shape[1])
    text_ids = torch.full((S,), vocab.pad_t)
    text_ids[: len(tokens)] = torch.tensor(tokens)
    audio_ids = torch.full((Q, S), vocab.pad_a)
    audio_ids[:, : delayed.shape[1]] = delayed
    return Streams(text=text_ids, audio=audio_ids)


def _checked_text(vocab: Vocab, text: Sequence[int]) -> list[int]:
    tokens = [int(token) for token in text]
    if any(not 0 <= token < vocab.text_base for token in tokens):
        raise ValueError(f"text tokens must lie in 0..{vocab.text_base - 1}: ids above are special tokens.")
    return tokens


# --- training examples ------------------------------------------------------------------------------------


@dataclass
class Example:
    """Inputs of one sequence; its targets are one step ahead, since each stream predicts its next id.

    text_in, text_target:   (S,)    int64
    audio_in, audio_target: (7, S)  int64; targets without a loss are IGNORE
    """

    text_in: Tensor
    audio_in: Tensor
    text_target: Tensor
    audio_target: Tensor

    def __len__(self) -> int:
        return self.text_in.shape[-1]


def example(
    vocab: Vocab, task: Task | str, *, question_text: Sequence[int] | None = None, positions: int | None = None,
    answer_text: Sequence[int], answer_codes: Tensor | None = None,
) -> Example:
    """Question and answer as one sequence of L steps: inputs are its [:-1], targets its [1:].

    question_text, positions: as in `prompt`
    answer_text:  the tokens of the answer (for A1T1 the transcript of the question)
    answer_codes: (7, T) codec ids, for the tasks that speak

    Only the answer has a loss. The text stream learns its tokens, eot and, while the audio goes on, pad_t:
    the model must learn silence too. Audio stream i learns pad_a * (i + 1), its codes and eoa. Steps
    after eoa, and the audio streams of a written answer, are IGNORE.
    """
    task = Task(task)
    if task.speaks != (answer_codes is not None):
        raise ValueError(f"{task} {'needs' if task.speaks else 'takes no'} answer_codes.")
    question = prompt(vocab, task, text=question_text, positions=positions)
    reply = answer(vocab, answer_text, answer_codes)
    text = torch.cat([question.text, reply.text])                               # (L,)
    audio = torch.cat([question.audio, reply.audio], dim=1)                     # (7, L)
    text_target = text.clone()
    audio_target = torch.full_like(audio, IGNORE)
    text_target[: len(question)] = IGNORE
    if answer_codes is not None:
        T = answer_codes.shape[1]
        for i in range(NUM_STREAMS):
            learnt = slice(len(question), len(question) + i + 1 + T + 1)        # pads, codes, eoa
            audio_target[i, learnt] = audio[i, learnt]
    return Example(text[:-1], audio[:, :-1], text_target[1:], audio_target[:, 1:])


@dataclass
class Batch:
    """Examples padded on the right to one length; `lengths` (B,) are the true ones.

    text_in, text_target:   (B, S)     int64
    audio_in, audio_target: (B, 7, S)  int64
    """

    text_in: Tensor
    audio_in: Tensor
    text_target: Tensor
    audio_target: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(*[getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)])

    def pick(self, chosen: Tensor) -> "Batch":
        """Some of the examples: `chosen` is a mask (B,) or their numbers."""
        return Batch(*[getattr(self, f.name)[chosen] for f in fields(self)])


def collate(examples: Sequence[Example], vocab: Vocab) -> Batch:
    """Pad on the right: inputs with pad_t and pad_a, targets with IGNORE.

    A causal model never looks to its right, so the real steps need no attention mask.
    """
    B, S = len(examples), max(len(one) for one in examples)
    batch = Batch(
        text_in=torch.full((B, S), vocab.pad_t),
        audio_in=torch.full((B, NUM_STREAMS, S), vocab.pad_a),
        text_target=torch.full((B, S), IGNORE),
        audio_target=torch.full((B, NUM_STREAMS, S), IGNORE),
        lengths=torch.tensor([len(one) for one in examples]),
    )
    for b, one in enumerate(examples):
        for f in fields(one):
            getattr(batch, f.name)[b, ..., : len(one)] = getattr(one, f.name)
    return batch
