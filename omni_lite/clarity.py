"""After that choice: the decoder learns from what the voice says, until Whisper misses no more than in recordings.

    a text --voice--> renditions --decoder--> sound --Whisper--> nats of each token
                                              recording of the same text --Whisper--> the same: no more may be lost

The decoder has learnt from codes in time with a recording (by_ear.py), of which the spectrum tells how they should have
sounded. An answer of the voice's own has no such recording: nobody says it at the same pace. But what a listener
understands needs no common time. So each token of the text shall be as likely to Whisper as it is in a recording, and
nothing is gained by being clearer. The codes keep their meaning, and the voice stays as it is.

Two things hold the sound where it is: recordings through the codec, whose spectrum is known, go on being learnt, and
renditions may not move far from how they sounded before. Shapes: letter legend in vocab.py.
Source of the idea: a listener's loss on whole utterances, DiffRO, arXiv 2507.05911.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.model import Whisper

from omni_lite.by_ear import ListenersLoss, Spoken
from omni_lite.codec import LiteSNAC, levels_from_frames, log_mel_distance
from omni_lite.likeness import SoundsAlike, WrittenAlike
from omni_lite.precision import mixed_precision
from omni_lite.train import Loop, only_training
from omni_lite.vocab import CODEC_RATE, FRAME_SAMPLES, FRAMES_PER_SECOND

SURE = 0.02                                  # nats of a token that nobody could miss
NEIGHBOURS, RENDITIONS_NEAR = 120, 400       # of like length, among which recordings and renditions are drawn
LISTENED = 16                                # recordings that Whisper hears together

One = TypeVar("One")


@dataclass(frozen=True)
class ClarityPlan:
    """Renditions by the voice, then steps of the decoder on these and on recordings.

    texts, draws: as in `PreferencePlan`
    recordings, renditions: how many of each are in a step, of at most `seconds`
    lost:    how much a nat counts by which a token is less likely than in a recording
    written, alike: as in `CodecPlan`, of the recordings
    near:    how much it counts how far renditions have moved from how they sounded before
    """

    name: str
    texts: int = 6000
    draws: int = 6
    steps: int = 2100
    recordings: int = 6
    renditions: int = 10
    seconds: float = 4.5
    peak: float = 4e-4
    end: float = 2e-5
    lost: float = 2.0
    written: float = 1.0
    alike: float = 2.0
    near: float = 0.15


# The second says other sentences.
CLARITY_PLANS = (ClarityPlan("decoder_alone"), ClarityPlan("decoder_again", steps=3000))


@dataclass(frozen=True)
class Said:
    """A rendition: codes (7, T), its text, and the nats of the text's tokens in a recording, (L,)."""

    codes: Tensor
    text: str
    nats: Tensor


# --- the losses -------------------------------------------------------------------------------------------


def lost(nats: Tensor, recorded: Tensor, counted: Tensor) -> Tensor:
    """Nats a token by which tokens are less likely than in the recording: (B, L) each -> ()"""
    return (F.relu(nats - recorded.clamp(min=SURE)) * counted).sum() / counted.sum()


@torch.no_grad()
def recorded_nats(alike: SoundsAlike, written: WrittenAlike, recordings: Mapping[str, Tensor],
                  device: torch.device) -> dict[str, Tensor]:
    """How unlikely each token of each text is to Whisper in its recording, int16 (N,) at 24 kHz: (L,) of each."""
    found: dict[str, Tensor] = {}
    texts = sorted(recordings, key=lambda text: len(recordings[text]))
    for first in range(0, len(texts), LISTENED):
        some = texts[first : first + LISTENED]
        samples = whole_frames(max(len(recordings[text]) for text in some))
        waves = torch.stack([F.pad(recordings[text].float() / 32768, (0, samples - len(recordings[text])))
                             for text in some])[:, None].to(device)
        with mixed_precision(device.type):
            nats, counted = written.doubts(alike.seen(waves)[-1].float(), some)
        found |= {text: row[here].cpu() for text, row, here in zip(some, nats, counted, strict=True)}
    return found


def whole_frames(samples: int) -> int:
    """The next multiple of three frames, which is one of six samples as well, see `likeness.to_ear_rate`."""
    return samples + -samples % (3 * FRAME_SAMPLES)


class ClarityLoss:
    """What is asked of the decoder: of recordings, and of renditions.

    whisper: on the codec's device; it stays as it is
    """

    def __init__(self, codec: LiteSNAC, whisper: Whisper, plan: ClarityPlan) -> None:
        self.codec, self.plan = codec, plan
        self.before = deepcopy(codec.decoder).requires_grad_(False)
        self.heard_by = ListenersLoss(whisper, plan.alike, plan.written)
        self.alike, self.written = self.heard_by.alike, WrittenAlike(whisper)

    def latents(self, codes: Sequence[Tensor], frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """B of (7, T) -> what the decoder gets, (B, L, D), and where sound is, (B, 1, N)"""
        padded = torch.stack([F.pad(one.long(), (0, frames - one.shape[1])) for one in codes]).to(device)
        inside = torch.arange(frames) < torch.tensor([one.shape[1] for one in codes])[:, None]
        with torch.no_grad():
            latents = self.codec.quantizer.from_codes(levels_from_frames(padded)).transpose(1, 2)
        return latents, inside.repeat_interleave(FRAME_SAMPLES, -1)[:, None].to(device)

    def of_recordings(self, some: Sequence[Spoken], device: torch.device) -> dict[str, Tensor]:
        """Spectrum, features and guesses of what comes out of the codec, against what went in; "loss" is their sum."""
        samples = whole_frames(max(one.codes.shape[1] for one in some) * FRAME_SAMPLES)
        wav = torch.stack([F.pad(one.wave.float() / 32768, (0, samples - len(one.wave))) for one in some])
        wav = wav[:, None].to(device)
        latents, inside = self.latents([one.codes for one in some], samples // FRAME_SAMPLES, device)
        texts = [one.text for one in some]
        with mixed_precision(device.type):
            sound = self.codec.decoder(latents) * inside
            with torch.no_grad():
                wanted = self.alike.seen(wav)
                recorded, _ = self.written.doubts(wanted[-1], texts)
            seen = self.alike.seen(sound)
            out = self.heard_by.compared(sound, wav, seen, wanted, texts)
            nats, counted = self.written.doubts(seen[-1], texts)
        return out | dict(loss=out["loss"] + self.plan.lost * lost(nats, recorded, counted))

    def of_renditions(self, some: Sequence[Said], device: torch.device) -> dict[str, Tensor]:
        """What is lost of the text, and how far the sound has moved; "loss" is their sum."""
        frames = whole_frames(max(one.codes.shape[1] for one in some) * FRAME_SAMPLES) // FRAME_SAMPLES
        latents, inside = self.latents([one.codes for one in some], frames, device)
        with mixed_precision(device.type):
            with torch.no_grad():
                before = self.before(latents) * inside
            sound = self.codec.decoder(latents) * inside
            nats, counted = self.written.doubts(self.alike.seen(sound)[-1], [one.text for one in some])
            recorded = torch.zeros_like(nats)
            for row, here, one in zip(recorded, counted, some, strict=True):
                row[here] = one.nats.to(device)
            out = dict(lost=lost(nats, recorded, counted), near=log_mel_distance(sound, before))
        return out | dict(loss=self.plan.lost * out["lost"] + self.plan.near * out["near"])


# --- training -----------------------------------------------------------------------------------------------


def train_clarity(codec: LiteSNAC, recordings: Sequence[Spoken], renditions: Sequence[tuple[str, Tensor]],
                  folder: Path, plan: ClarityPlan, whisper: Whisper, say: Callable[[str], None] = print) -> None:
    """Train the decoder on, and nothing else.

    recordings: sentences of the answer voice with their codes
    renditions: (text, codes (7, T)) of the voice; those of texts without a recording are left out
    """
    torch.manual_seed(0)
    device, loss = codec.quantizer.quantizers[0].codebook.weight.device, ClarityLoss(codec, whisper, plan)
    known = recorded_nats(loss.alike, loss.written, {one.text: one.wave for one in recordings}, device)
    spoken = sorted((one for one in recordings if len(one.wave) <= plan.seconds * CODEC_RATE),
                    key=lambda one: len(one.wave))
    said = sorted((Said(codes, text, known[text]) for text, codes in renditions
                   if text in known and codes.shape[1] <= plan.seconds * FRAMES_PER_SECOND),
                  key=lambda one: one.codes.shape[1])
    if not spoken or not said:
        raise ValueError(f"No sentence with a rendition is as short as {plan.seconds} s: {plan.name} needs some, give "
                         "the plan longer `seconds`.")
    say(f"{plan.name}  {len(spoken)} recordings, {len(said)} renditions")

    def losses(step: int) -> dict[str, Tensor]:
        dice = random.Random(f"{plan.name} {step}")
        heard = loss.of_recordings(near(spoken, plan.recordings, NEIGHBOURS, dice), device)
        own = loss.of_renditions(near(said, plan.renditions, RENDITIONS_NEAR, dice), device)
        return dict(loss=heard.pop("loss") + own.pop("loss")) | heard | own

    with only_training(codec, plan.name, ("decoder",)):
        Loop(plan.name, codec, list(codec.decoder.parameters()), plan.steps, plan.peak, plan.end, folder,
             say=say).run(losses)


def near(ordered: Sequence[One], count: int, neighbours: int, dice: random.Random) -> list[One]:
    """Some of these, which stand near each other: of like length where they are in that order."""
    first = dice.randrange(max(1, len(ordered) - neighbours + 1))
    some = ordered[first : first + neighbours]
    return dice.sample(some, min(count, len(some)))
