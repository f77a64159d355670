"""The last stage: the codec's decoder learns from what Whisper hears and writes down.

    codes --voice--> other codes --codec's decoder--> sound --Whisper--> features, guesses of the next word
                                                 recording --Whisper--> the same

Until here the decoder has only met codes that no voice draws. Shapes: letter legend in vocab.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from whisper.model import Whisper

from omni_lite.codec import LiteSNAC, levels_from_frames, log_mel_distance
from omni_lite.data import Item, gather, lay_out
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, SoundsAlike, WrittenAlike
from omni_lite.model import OmniModel
from omni_lite.precision import mixed_precision
from omni_lite.streams import IGNORE, Task
from omni_lite.train import CodecPlan, Loop, in_workers, only_training
from omni_lite.vocab import CODEC_RATE, FRAME_SAMPLES, FRAMES_PER_SECOND, NUM_STREAMS

NEIGHBOURS = 60                              # sentences of like length among which a batch is drawn

# First for the codes that the decoder will be given, then for the words that a listener writes down.
DECODER_PLANS = (
    CodecPlan("decoder", 1400, 8, 18 / FRAMES_PER_SECOND, peak=4e-4, reseed_until=0.0, trains=("decoder",),
              starts=0.25, alike=2.0, drawn=0.6),
    CodecPlan("decoder_words", 1300, 6, 4.5, peak=4e-4, reseed_until=0.0, trains=("decoder",), alike=2.0, drawn=0.5,
              written=2.0),
)


@dataclass(frozen=True)
class Spoken:
    """A sentence of the answer voice: int16 (N,) at 24 kHz, its codes (7, T), and those that the model draws (7, T).

    text: what is said
    """

    wave: Tensor
    codes: Tensor
    drawn: Tensor
    text: str = ""


# --- what the voice would say ---------------------------------------------------------------------------


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
    targets = batch.audio_target                                           # (B, 7, S)
    spoken = model.speak(model.run(model.embed(batch.text_in, batch.audio_in, None, None)), text_ids=batch.text_in)
    logits = model.audio_head(spoken)[..., : vocab.codebook]               # (B, S, 7, codebook)
    drawn = torch.distributions.Categorical(logits=logits / temperature).sample().transpose(1, 2)
    inside = (targets != IGNORE) & (targets < vocab.codebook)
    return [torch.stack([row[where] for row, where in zip(*pair, strict=True)])
            for pair in zip(drawn.cpu(), inside.cpu(), strict=True)]


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
