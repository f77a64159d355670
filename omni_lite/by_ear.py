"""After the phases: the codec's decoder, and then the voice too, learn from what Whisper hears and writes down.

    codes --voice--> other codes --codec's decoder--> sound --Whisper--> features, guesses of the next word
                                                 recording --Whisper--> the same

Until here the voice was judged by the codes that the encoder chose, of which it finds every fifth, and the decoder by
codes that no voice draws. Shapes: letter legend in vocab.py.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import Whisper

from omni_lite.codec import LiteSNAC, levels_from_frames, log_mel_distance
from omni_lite.data import Heard, Item, gather, lay_out
from omni_lite.generate import Delay, sample, sayable
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, SoundsAlike, WrittenAlike
from omni_lite.model import OmniModel
from omni_lite.precision import mixed_precision
from omni_lite.streams import IGNORE, Batch, Task, prompt, undelay_streams
from omni_lite.train import (
    WORDS_FIRST,
    CodecPlan,
    Loop,
    in_workers,
    inner_matrices,
    next_token_loss,
    only_training,
    with_noise,
)
from omni_lite.vocab import (
    CODEC_RATE,
    FRAME_ORDER,
    FRAME_SAMPLES,
    FRAMES_PER_SECOND,
    LEVEL_STRIDES,
    NUM_STREAMS,
    Vocab,
)

VOICE_NOISE = 0.1                            # share of the past that is wrong, as in the phase before
# Of the gradient of what is heard that reaches the voice: about as much as comes from the right codes.
SOUND_SHARE = 0.2
TEMPERATURE = 0.25                           # at which the voice draws here: a little more freely than it answers
MIN_FRAMES = 3                               # of a sound that Whisper listens to
NEIGHBOURS = 60                              # sentences of like length among which a batch is drawn

# First for the codes that the decoder will be given, then for the words that a listener writes down. Then both learn
# together, the voice which of its codes cost a word. And last the voice learns so from answers of its own.
DECODER_PLANS = (
    CodecPlan("decoder", 1400, 8, 18 / FRAMES_PER_SECOND, peak=4e-4, reseed_until=0.0, trains=("decoder",),
              starts=0.25, alike=2.0, drawn=0.6),
    CodecPlan("decoder_words", 1300, 6, 4.5, peak=4e-4, reseed_until=0.0, trains=("decoder",), alike=2.0, drawn=0.5,
              written=2.0),
    CodecPlan("decoder_voice", 1350, 6, 4.5, peak=2e-4, end=1e-5, reseed_until=0.0, trains=("decoder",), alike=2.0,
              drawn=1.0, written=2.0, voice=3.5),
    CodecPlan("voice_alone", 1850, 8, 4.5, peak=5e-4, end=1e-5, reseed_until=0.0, trains=(), written=1.0, voice=1.0,
              alone=True),
)


@dataclass(frozen=True)
class Spoken:
    """A sentence of the answer voice: int16 (N,) at 24 kHz, its codes (7, T), and those that the model draws (7, T).

    text, tokens: what is said, as Whisper's tokenizer and the model's own have it
    """

    wave: Tensor
    codes: Tensor
    drawn: Tensor
    text: str = ""
    tokens: tuple[int, ...] = ()


# --- what the voice would say ---------------------------------------------------------------------------


def voice_logits(model: OmniModel, batch: Batch) -> Tensor:
    """What the voice finds likely at every step of answers whose past it knows: (B, S, 7, V_audio)."""
    with torch.no_grad():
        hidden = model.run(model.embed(batch.text_in, batch.audio_in, None, None))
    return model.audio_head(model.speak(hidden, text_ids=batch.text_in))


def in_frames(steps: Tensor, targets: Tensor, codebook: int, frames: int) -> Tensor:
    """The steps at which codes are said, without the delay: (B, S, 7, ...) -> (B, frames, 7, ...).

    targets: (B, 7, S) of the same batch, see `streams.example`. Zeros follow an answer's last frame
    """
    inside = (targets != IGNORE) & (targets < codebook)
    rows = [torch.stack([row[said, q] for q, said in enumerate(where)], 1)
            for row, where in zip(steps, inside, strict=True)]
    return torch.stack([F.pad(row, (0, 0) * (row.dim() - 1) + (0, frames - len(row))) for row in rows])


@torch.no_grad()
def draw_codes(model: OmniModel, sentences: Sequence[tuple[tuple[int, ...], Tensor]],
               temperature: float = 0.3) -> list[Tensor]:
    """What the voice would say at each place of answers whose past it knows: codes (7, T) of each.

    sentences: (tokens, codes (7, T)); each is its own question

    So its codes are in time with a recording, as those of a whole answer of its own never are.
    """
    vocab = model.config.vocab
    tokens, known = zip(*sentences, strict=True)
    batch = laid(vocab, tokens, tokens, known).batch.to(model.bands.device)
    logits = voice_logits(model, batch)[..., : vocab.codebook]
    drawn = torch.distributions.Categorical(logits=logits / temperature).sample()
    frames = [codes.shape[1] for codes in known]
    rows = in_frames(drawn, batch.audio_target, vocab.codebook, max(frames)).transpose(1, 2)
    return [row[:, :n] for row, n in zip(rows.cpu(), frames, strict=True)]


@torch.no_grad()
def own_answers(model: OmniModel, questions: Sequence[Sequence[int]], answers: Sequence[Sequence[int]],
                limits: Sequence[int], temperature: float = 0.25, top_k: int = 30,
                guidance: float = 1.0) -> list[Tensor]:
    """What the voice says when it has nothing but its own past: codes (7, T) of each, all of them at once.

    questions: tokens, each of as many, so that all answers begin at the same step
    answers:   tokens of what is said; the text row is given, only the voice is free
    limits:    frames after which each is cut
    guidance:  as in `Sampling`
    Like `generate` with a text that is known, but a batch of them
    """
    vocab, device = model.config.vocab, model.bands.device
    delays = [Delay(vocab, limit) for limit in limits]
    written = max(map(len, answers))
    text = torch.full((len(answers), written + 1), vocab.pad_t)
    for row, tokens in zip(text, answers, strict=True):
        row[: len(tokens)], row[len(tokens)] = torch.tensor(tokens), vocab.eot
    starts = [prompt(vocab, Task.T1A2, text=question) for question in questions]
    text_ids, audio_ids = (torch.stack(rows).to(device)
                           for rows in zip(*((start.text, start.audio) for start in starts), strict=True))
    cache, step = model.new_cache(), 0
    while True:
        hidden = model.run(model.embed(text_ids, audio_ids), cache)
        if guidance != 1:                    # a second batch, which cannot read
            hidden, text_ids = hidden.repeat(2, 1, 1), torch.cat([text_ids, torch.full_like(text_ids, vocab.pad_t)])
        logits = model.audio_head(model.speak(hidden, cache, text_ids)[:, -1])      # (B or 2 B, 7, V_audio)
        if guidance != 1:
            read, unread = logits.float().chunk(2)
            logits = unread.lerp(read, guidance)
        drawn = sample(sayable(vocab, logits), temperature, top_k).tolist()
        said = [delay.place(row) for delay, row in zip(delays, drawn, strict=True)]
        if all(delay.done for delay in delays):
            break
        column = text[:, step] if step <= written else torch.full_like(text[:, 0], vocab.pad_t)
        text_ids, audio_ids = column[:, None].to(device), torch.tensor(said)[..., None].to(device)
        step += 1
    return [undelay_streams(torch.tensor(delay.said).T)[:, : delay.frames] for delay in delays]


def drawn_latents(codec: LiteSNAC, logits: Tensor, codes: Tensor) -> Tensor:
    """What the decoder gets of drawn codes, such that its gradient reaches the logits they were drawn from.

    What is heard are these codes and no mixture, as in an answer. But the gradient is that of the mean of all entries,
    each as often as it is likely: whoever would have sounded better becomes likelier.

    logits: (B, T, 7, codebook);  codes: (B, 7, T);  returns: (B, L, D)
    Source: the straight-through estimator, arXiv 1308.3432
    """
    latents = []
    for level, (known, quantizer) in enumerate(zip(levels_from_frames(codes), codec.quantizer.quantizers, strict=True)):
        streams = [FRAME_ORDER.index((level, place)) for place in range(LEVEL_STRIDES[0] // LEVEL_STRIDES[level])]
        likely = logits[:, :, streams].flatten(1, 2).softmax(-1)                       # (B, T * streams, codebook)
        mean = (likely @ quantizer.codebook.weight).transpose(1, 2)
        entries = quantizer.decode_code(known) + (mean - mean.detach())
        latents.append(quantizer.out_proj(entries).repeat_interleave(quantizer.stride, dim=-1))
    return torch.stack(latents).sum(0).transpose(1, 2)


# --- batches --------------------------------------------------------------------------------------------

# Sound (B, 1, N), codes (B, 7, T), where to listen (B, 1, N), and the B texts where all of them is said.
Coded = tuple[Tensor, Tensor, Tensor, list[str]]


def coded_crops(sentences: Sequence[Spoken], plan: CodecPlan) -> Iterator[Coded]:
    """Whole frames of sentences, longer ones more often.

    A frame that was cut off from its past is not judged, nor is what follows the end of a sentence.
    """
    frames = round(plan.seconds * FRAMES_PER_SECOND)
    lengths = torch.tensor([sentence.codes.shape[1] for sentence in sentences])
    while True:
        wav, heard = torch.zeros(2, plan.batch, 1, frames * FRAME_SAMPLES)
        codes = torch.zeros(plan.batch, NUM_STREAMS, frames, dtype=torch.int64)
        for row, index in enumerate(torch.multinomial(lengths.float(), plan.batch, replacement=True).tolist()):
            sentence, spare = sentences[index], int(lengths[index]) - frames
            start = 0 if spare <= 0 or torch.rand(()) < plan.starts else int(torch.randint(spare + 1, ()))
            piece = sentence.wave[start * FRAME_SAMPLES : (start + frames) * FRAME_SAMPLES]
            known = (sentence.drawn if torch.rand(()) < plan.drawn else sentence.codes)[:, start : start + frames]
            wav[row, 0, : len(piece)] = piece.float() / 32768
            codes[row, :, : known.shape[1]] = known
            heard[row, 0, FRAME_SAMPLES * (start > 0) : known.shape[1] * FRAME_SAMPLES] = 1
        yield wav * heard, codes, heard, []


def groups(sentences: Sequence[Spoken], plan: CodecPlan) -> Iterator[list[Spoken]]:
    """Sentences of like length, each at most as long as `plan.seconds`."""
    fitting = sorted((one for one in sentences if len(one.wave) <= plan.seconds * CODEC_RATE),
                     key=lambda one: one.codes.shape[1])
    if not fitting:
        raise ValueError(f"No sentence is as short as {plan.seconds} s: {plan.name} needs some, give the plan longer "
                         "`seconds`.")
    while True:
        first = int(torch.randint(max(1, len(fitting) - NEIGHBOURS + 1), ()))
        near = fitting[first : first + NEIGHBOURS]
        yield [near[i] for i in torch.randperm(len(near))[: plan.batch].tolist()]


def whole(some: Sequence[Spoken], plan: CodecPlan) -> Coded:
    """Whole sentences; silence follows the shorter ones."""
    frames = max(one.codes.shape[1] for one in some)
    frames += -frames % 3                                                  # a multiple of six samples: `to_ear_rate`
    wav, heard = torch.zeros(2, len(some), 1, frames * FRAME_SAMPLES)
    codes = torch.zeros(len(some), NUM_STREAMS, frames, dtype=torch.int64)
    for row, sentence in enumerate(some):
        known = sentence.drawn if torch.rand(()) < plan.drawn else sentence.codes
        wav[row, 0, : len(sentence.wave)] = sentence.wave.float() / 32768
        codes[row, :, : known.shape[1]] = known
        heard[row, 0, : known.shape[1] * FRAME_SAMPLES] = 1
    return wav, codes, heard, [sentence.text for sentence in some]


# --- training -------------------------------------------------------------------------------------------


class ListenersLoss(nn.Module):
    """The loss of a decoded sound: its spectrum, what Whisper hears, and, where that is asked for, what it writes.

    whisper: on the codec's device; it stays as it is
    alike, written: how much a plan lets features and guesses count, see `CodecPlan`
    alone:   the two sounds have no common time, so that only what is written can be compared
    """

    def __init__(self, whisper: Whisper, alike: float, written: float, alone: bool = False) -> None:
        super().__init__()
        self.share_alike, self.share_written, self.alone = alike, written, alone
        whisper.requires_grad_(False)
        self.alike = SoundsAlike(Ears(whisper.encoder), AFTER if written else 0)
        self.written = WrittenAlike(whisper) if written else None

    def forward(self, sound: Tensor, wav: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """(B, 1, N) as it was decoded and as it was recorded -> "loss" and what it is made of."""
        with torch.no_grad():
            wanted = self.alike.seen(wav)
        return self.compared(sound, wav, self.alike.seen(sound), wanted, texts)

    def compared(self, sound: Tensor, wav: Tensor, seen: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor],
                 texts: Sequence[str]) -> dict[str, Tensor]:
        """The same, where Whisper's features of the two are known already, see `SoundsAlike.seen`."""
        out, loss = {}, sound.new_zeros(())
        if not self.alone:
            out = dict(mel=log_mel_distance(sound, wav), alike=self.alike.apart(seen, wanted))
            loss = out["mel"] + self.share_alike * out["alike"]
        if self.written is not None:
            out["written"] = self.written(seen[-1], wanted[-1], texts)
            loss = loss + self.share_written * out["written"]
        return dict(loss=loss) | out


def train_decoder(codec: LiteSNAC, sentences: Sequence[Spoken], folder: Path, plan: CodecPlan, whisper: Whisper,
                  say: Callable[[str], None] = print) -> None:
    """Train the decoder on, on codes as the voice draws them, for the sound that was recorded and what Whisper hears.

    The decoder has only met codes that the encoder chose together. A language model draws other ones, level after
    level, of which many are as good and some do not fit together: from those, too, the word should be heard.
    """
    torch.manual_seed(0)
    device = codec.quantizer.quantizers[0].codebook.weight.device
    heard_by = ListenersLoss(whisper, plan.alike, plan.written)

    def drawn(_: int) -> Iterator[Coded]:
        if plan.written:
            return (whole(some, plan) for some in groups(sentences, plan))
        return coded_crops(sentences, plan)

    pieces = in_workers(drawn, device)

    def losses(step: int) -> dict[str, Tensor]:
        *tensors, texts = next(pieces)
        wav, codes, heard = (one.to(device) for one in tensors)
        with torch.no_grad():
            latents = codec.quantizer.from_codes(levels_from_frames(codes)).transpose(1, 2)
        with mixed_precision(device.type):
            sound = codec.decoder(latents) * heard
        return heard_by(sound, wav, texts)

    with only_training(codec, plan.name, plan.trains):
        trained = list(codec.decoder.parameters())
        Loop(plan.name, codec, trained, plan.steps, plan.peak, plan.end, folder, say=say).run(losses)


def train_voice(model: OmniModel, codec: LiteSNAC, sentences: Sequence[Spoken], questions: Sequence[tuple[int, ...]],
                folder: Path, plan: CodecPlan, whisper: Whisper, say: Callable[[str], None] = print) -> None:
    """Train the voice for the right codes and for what Whisper makes of those that it draws.

    Cross-entropy knows one right code at each place and 1,023 wrong ones. Most of them sound as well, and some cost a
    word: which, only who listens can tell. So the voice draws codes, they are decoded, and what Whisper finds different
    from the recording tells the voice, and the decoder where the plan trains it, what would have been better.

    At first it draws them in time with a recording, whose past it knows, so that spectra can be compared as well. But
    whoever speaks alone has no past but his own. `plan.alone`: so it answers alone, and what Whisper writes down of it
    is compared, which needs no common time. Source of the idea: DiffRO, arXiv 2507.05911

    questions: of the model's tokens; each sentence answers any of them, so that it is said for what it is
    """
    torch.manual_seed(0)
    random.seed(f"{plan.name} 0")
    assert model.tts_adapter is not None, "a model without a TTS adapter has no voice of its own"
    model.requires_grad_(False)
    voice = list(model.tts_adapter.requires_grad_(True).parameters())
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    device, heard_by = model.bands.device, ListenersLoss(whisper, plan.alike, plan.written, plan.alone)
    pieces = in_workers(lambda worker: lessons(model.config.vocab, sentences, questions, plan, worker), device)
    listen = alone if plan.alone else in_time

    def losses(step: int) -> dict[str, Tensor]:
        lesson = next(pieces).to(device)
        with mixed_precision(device.type):
            logits = voice_logits(model, lesson.batch).float()
        right = right_codes(logits, lesson.batch)
        heard = listen(model, codec, heard_by, lesson, logits)
        return heard | dict(loss=heard["loss"] + right, codes=right)

    model.train()
    with only_training(codec, plan.name, plan.trains):
        decoder = [p for p in codec.parameters() if p.requires_grad]
        modules = nn.ModuleDict(dict(voice=model.tts_adapter, decoder=codec.decoder))
        Loop(plan.name, modules, voice + decoder, plan.steps, plan.peak, plan.end, folder,
             rates={p: plan.voice for p in voice}, turned=inner_matrices(model, ("tts_adapter",)), say=say).run(losses)
    model.requires_grad_(True).eval()
    for name, before in frozen.items():
        if not torch.equal(before, model.get_parameter(name)):
            raise AssertionError(f"{plan.name} changed {name}, which is frozen in it: this is a bug of the loop.")


@dataclass
class Lesson:
    """Sentences to be said: recordings and codes as `whole` lays them, and the layout with their codes as the past."""

    coded: Coded
    batch: Batch
    question: tuple[int, ...]
    tokens: list[tuple[int, ...]]

    def to(self, device: torch.device) -> "Lesson":
        """The same on another device."""
        wav, codes, heard, texts = self.coded
        return replace(self, coded=(wav.to(device), codes.to(device), heard.to(device), texts),
                       batch=self.batch.to(device))


def lessons(vocab: Vocab, sentences: Sequence[Spoken], questions: Sequence[tuple[int, ...]], plan: CodecPlan,
            worker: int) -> Iterator[Lesson]:
    """Groups of sentences, each group as answers to one question, with a tenth of the known past wrong."""
    if worker:
        random.seed(f"{plan.name} 0 {worker}")
    for some in groups(sentences, plan):
        question, tokens = random.choice(questions), [one.tokens for one in some]
        batch = laid(vocab, [question] * len(some), tokens, [one.codes for one in some])
        yield Lesson(whole(some, plan), with_noise(batch, vocab, VOICE_NOISE).batch, question, tokens)


def laid(vocab: Vocab, questions: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]],
         codes: Sequence[Tensor]) -> Heard:
    """Answers aloud, (7, T) codes of each, to typed questions, as training lays them out."""
    items = [Item(Task.T1A2, asked, said, codes=known)
             for asked, said, known in zip(questions, answers, codes, strict=True)]
    return gather(items, [lay_out(item, vocab, 0) for item in items], vocab, None)


def right_codes(logits: Tensor, batch: Batch) -> Tensor:
    """The cross-entropy of the phase before, at all steps that say something: logits (B, S, 7, V_audio) -> ()"""
    targets = batch.audio_target.transpose(1, 2)                           # (B, S, 7)
    says = (targets != IGNORE).any(-1)
    counts = torch.tensor(WORDS_FIRST, device=logits.device).repeat(int(says.sum()))
    return next_token_loss(logits[says].flatten(0, 1), targets[says].flatten(), counts)


def in_time(model: OmniModel, codec: LiteSNAC, heard_by: ListenersLoss, lesson: Lesson,
            logits: Tensor) -> dict[str, Tensor]:
    """What is heard of codes that are drawn from these logits, whose past is the recording's."""
    wav, known, heard, texts = lesson.coded
    frames = in_frames(logits[..., : model.config.vocab.codebook], lesson.batch.audio_target,
                       model.config.vocab.codebook, known.shape[-1])
    frames = SOUND_SHARE * frames + (1 - SOUND_SHARE) * frames.detach()
    codes = torch.distributions.Categorical(logits=frames.detach() / TEMPERATURE).sample().transpose(1, 2)
    codes = codes * heard[:, :, ::FRAME_SAMPLES].long()                    # zeros after the end, as elsewhere
    with mixed_precision(wav.device.type):
        sound = codec.decoder(drawn_latents(codec, frames, codes)) * heard
    return heard_by(sound, wav, texts)


def alone(model: OmniModel, codec: LiteSNAC, heard_by: ListenersLoss, lesson: Lesson, _: Tensor) -> dict[str, Tensor]:
    """What is written down of answers that have no past but their own."""
    vocab, (wav, _, heard, texts) = model.config.vocab, lesson.coded
    frames = heard[:, 0, ::FRAME_SAMPLES].sum(-1).tolist()
    model.eval()
    own = own_answers(model, [lesson.question] * len(lesson.tokens), lesson.tokens,
                      [round(1.4 * n) + 6 for n in frames], TEMPERATURE)
    model.train()
    batch = laid(vocab, [lesson.question] * len(own), lesson.tokens, own).batch.to(wav.device)
    longest = max(MIN_FRAMES, *(codes.shape[1] for codes in own))
    longest += -longest % 3                                                # a multiple of six samples: `to_ear_rate`
    codes = torch.stack([F.pad(row, (0, longest - row.shape[1])) for row in own]).to(wav.device)
    lengths = torch.tensor([row.shape[1] for row in own], device=wav.device)
    inside = (torch.arange(longest, device=wav.device) < lengths[:, None]).repeat_interleave(FRAME_SAMPLES, -1)
    with mixed_precision(wav.device.type):
        logits = voice_logits(model, batch).float()
        likely = in_frames(logits[..., : vocab.codebook], batch.audio_target, vocab.codebook, longest)
        sound = codec.decoder(drawn_latents(codec, likely, codes)) * inside[:, None]
    return heard_by(sound, wav, texts)
