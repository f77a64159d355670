"""The last stage: the codec's decoder, and then the voice too, learn from what Whisper hears and writes down.

    codes --voice--> other codes --codec's decoder--> sound --Whisper--> features, guesses of the next word
                                                 recording --Whisper--> the same

Until here the voice was judged by the codes that the encoder chose, of which it finds every fifth, and the decoder by
codes that no voice draws. Shapes: letter legend in vocab.py.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import Whisper

from omni_lite.codec import LiteSNAC, levels_from_frames, log_mel_distance
from omni_lite.data import Item, gather, lay_out
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, SoundsAlike, WrittenAlike
from omni_lite.model import OmniModel
from omni_lite.precision import mixed_precision
from omni_lite.streams import IGNORE, Batch, Task
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
from omni_lite.vocab import CODEC_RATE, FRAME_ORDER, FRAME_SAMPLES, FRAMES_PER_SECOND, LEVEL_STRIDES, NUM_STREAMS

VOICE_NOISE = 0.1                            # share of the past that is wrong, as in the phase before
# Of the gradient of what is heard that reaches the voice: about as much as comes from the right codes.
SOUND_SHARE = 0.2
NEIGHBOURS = 60                              # sentences of like length among which a batch is drawn

# First for the codes that the decoder will be given, then for the words that a listener writes down, and last both
# together: the voice learns which of its codes cost a word.
DECODER_PLANS = (
    CodecPlan("decoder", 1400, 8, 18 / FRAMES_PER_SECOND, peak=4e-4, reseed_until=0.0, trains=("decoder",),
              starts=0.25, alike=2.0, drawn=0.6),
    CodecPlan("decoder_words", 1700, 6, 4.5, peak=4e-4, reseed_until=0.0, trains=("decoder",), alike=2.0, drawn=0.5,
              written=2.0),
    CodecPlan("decoder_voice", 1350, 6, 4.5, peak=2e-4, end=1e-5, reseed_until=0.0, trains=("decoder",), alike=2.0,
              drawn=1.0, written=2.0, voice=3.5),
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
    items = [Item(Task.T1A2, question=tokens, answer=tokens, codes=codes) for tokens, codes in sentences]
    batch = gather(items, [lay_out(item, vocab, 0) for item in items], vocab, None).batch.to(model.bands.device)
    logits = voice_logits(model, batch)[..., : vocab.codebook]
    drawn = torch.distributions.Categorical(logits=logits / temperature).sample()
    frames = [codes.shape[1] for _, codes in sentences]
    rows = in_frames(drawn, batch.audio_target, vocab.codebook, max(frames)).transpose(1, 2)
    return [row[:, :n] for row, n in zip(rows.cpu(), frames, strict=True)]


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
    """The loss of a decoded sound: its spectrum, what Whisper hears, and, where the plan asks for it, what it writes.

    whisper: on the codec's device; it stays as it is
    """

    def __init__(self, whisper: Whisper, plan: CodecPlan) -> None:
        super().__init__()
        self.plan = plan
        whisper.requires_grad_(False)
        self.alike = SoundsAlike(Ears(whisper.encoder), AFTER if plan.written else 0)
        self.written = WrittenAlike(whisper) if plan.written else None

    def forward(self, sound: Tensor, wav: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """(B, 1, N) as it was decoded and as it was recorded -> "loss" and what it is made of."""
        with torch.no_grad():
            wanted = self.alike.seen(wav)
        seen = self.alike.seen(sound)
        out = dict(mel=log_mel_distance(sound, wav), alike=self.alike.apart(seen, wanted))
        loss = out["mel"] + self.plan.alike * out["alike"]
        if self.written is not None:
            out["written"] = self.written(seen[-1], wanted[-1], texts)
            loss = loss + self.plan.written * out["written"]
        return dict(loss=loss) | out


def train_decoder(codec: LiteSNAC, sentences: Sequence[Spoken], folder: Path, plan: CodecPlan, whisper: Whisper,
                  say: Callable[[str], None] = print) -> None:
    """Train the decoder on, on codes as the voice draws them, for the sound that was recorded and what Whisper hears.

    The decoder has only met codes that the encoder chose together. A language model draws other ones, level after
    level, of which many are as good and some do not fit together: from those, too, the word should be heard.
    """
    torch.manual_seed(0)
    device, heard_by = codec.quantizer.quantizers[0].codebook.weight.device, ListenersLoss(whisper, plan)

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

    with only_training(codec, plan):
        trained = list(codec.decoder.parameters())
        Loop(plan.name, codec, trained, plan.steps, plan.peak, plan.end, folder, say=say).run(losses)


def train_voice(model: OmniModel, codec: LiteSNAC, sentences: Sequence[Spoken], questions: Sequence[tuple[int, ...]],
                folder: Path, plan: CodecPlan, whisper: Whisper, say: Callable[[str], None] = print,
                temperature: float = 0.25) -> None:
    """Train voice and decoder together, for the right codes and for what Whisper makes of those that are drawn.

    Cross-entropy knows one right code at each place and 1,023 wrong ones. Most of them sound as well, and some cost a
    word: which, only who listens can tell. So the voice draws its codes in time with a recording, whose past it knows;
    they are decoded; and what Whisper finds different from the recording tells the voice as well as the decoder what
    would have been better. Nothing but the TTS adapter and the decoder changes.

    questions: of the model's tokens; each sentence answers any of them, so that it is said for what it is
    """
    torch.manual_seed(0)
    random.seed(f"{plan.name} 0")
    assert model.tts_adapter is not None, "a model without a TTS adapter has no voice of its own"
    device, vocab, heard_by = model.bands.device, model.config.vocab, ListenersLoss(whisper, plan)
    model.requires_grad_(False)
    voice = list(model.tts_adapter.requires_grad_(True).parameters())
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}

    def drawn(worker: int) -> Iterator[tuple[Coded, Batch]]:
        if worker:
            random.seed(f"{plan.name} 0 {worker}")
        for some in groups(sentences, plan):
            items = [Item(Task.T1A2, random.choice(questions), one.tokens, codes=one.codes) for one in some]
            laid = gather(items, [lay_out(item, vocab, 0) for item in items], vocab, None)
            yield whole(some, plan), with_noise(laid, vocab, VOICE_NOISE).batch

    pieces, counts = in_workers(drawn, device), torch.tensor(WORDS_FIRST, device=device)

    def losses(step: int) -> dict[str, Tensor]:
        (wav, known, heard, texts), batch = next(pieces)
        wav, heard, batch = wav.to(device), heard.to(device), batch.to(device)
        targets = batch.audio_target.transpose(1, 2)                       # (B, S, 7)
        says = (targets != IGNORE).any(-1)
        with mixed_precision(device.type):
            logits = voice_logits(model, batch)
        logits = logits.float()
        right = next_token_loss(logits[says].flatten(0, 1), targets[says].flatten(),
                                counts.repeat(int(says.sum())))
        frames = in_frames(logits[..., : vocab.codebook], batch.audio_target, vocab.codebook, known.shape[-1])
        frames = SOUND_SHARE * frames + (1 - SOUND_SHARE) * frames.detach()
        codes = torch.distributions.Categorical(logits=frames.detach() / temperature).sample().transpose(1, 2)
        codes = codes * heard[:, :, ::FRAME_SAMPLES].long()                # zeros after the end, as elsewhere
        with mixed_precision(device.type):
            sound = codec.decoder(drawn_latents(codec, frames, codes)) * heard
        out = heard_by(sound, wav, texts)
        return out | dict(loss=out["loss"] + right, codes=right)

    model.train()
    with only_training(codec, plan):
        decoder = list(codec.decoder.parameters())
        modules = nn.ModuleDict(dict(voice=model.tts_adapter, decoder=codec.decoder))
        Loop(plan.name, modules, voice + decoder, plan.steps, plan.peak, plan.end, folder,
             rates={p: plan.voice for p in voice}, turned=inner_matrices(model, ("tts_adapter",)), say=say).run(losses)
    model.requires_grad_(True).eval()
    for name, before in frozen.items():
        if not torch.equal(before, model.get_parameter(name)):
            raise AssertionError(f"{plan.name} changed {name}, which is frozen in it: this is a bug of the loop.")
