"""Training LiteSNAC: its loss, its rounds as data, and the function that runs one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_lite.hear import Ears
from omni_lite.litesnac.codec import LOSS_FLOOR, LiteSNAC, Quantized, mel_matrix
from omni_lite.loop import Loop, adamw, in_workers
from omni_lite.precision import mixed_precision
from omni_lite.recipes.lite.likeness import SoundsAlike, WhisperLikeness
from omni_lite.vocab import CODEC_RATE

# The seven scales of DAC's loss: samples of the window, mel bins (hop = window / 4)
LOSS_SCALES = ((2048, 320), (1024, 160), (512, 80), (256, 40), (128, 20), (64, 10), (32, 5))
CODEBOOK_WEIGHT = 0.5                        # of the quantizer's losses beside the log-mel distance
COMMITMENT_WEIGHT = 0.25
WEIGHT_DECAY = 0.01


# --- the training loss --------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _loss_scale(window: int, mels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.hann_window(window, device=device), mel_matrix(window // 2 + 1, mels).to(device)


def log_mel_distance(reconstruction: Tensor, wav: Tensor) -> Tensor:
    """Perceptual distance of two sounds: mean |difference| of log10 mel magnitudes.

    The sum over seven window lengths, 85 ms to 1.3 ms: long windows measure pitch, short ones timing.

    reconstruction, wav: (B, 1, N), N > 1024
    source:  DAC, dac/nn/loss.py::MelSpectrogramLoss
    """
    with torch.autocast(wav.device.type, enabled=False):
        distance = wav.new_zeros((), dtype=torch.float32)
        for size, mels in LOSS_SCALES:
            window, mel = _loss_scale(size, mels, wav.device)
            heard = []
            for sound in (reconstruction, wav):
                sound = sound.float().squeeze(1)
                spectrum = torch.stft(sound, size, size // 4, window=window, return_complex=True)
                heard.append((mel.T @ spectrum.abs()).clamp(min=LOSS_FLOOR).log10())
            distance = distance + F.l1_loss(heard[0], heard[1])
    return distance


def codec_loss(reconstruction: Tensor, wav: Tensor, quantized: Quantized) -> dict[str, Tensor]:
    """The training loss of LiteSNAC: log-mel distance + 0.5 * (codebook + 0.25 * commitment).

    reconstruction, wav: (B, 1, N), N > 1024; `LiteSNAC.forward` gives `reconstruction` and `quantized`
    returns: scalars "loss" (to call backward on), "mel", "codebook", "commitment"
    """
    mel = log_mel_distance(reconstruction, wav)
    quantizer = quantized.codebook_loss + COMMITMENT_WEIGHT * quantized.commitment_loss
    return {
        "loss": mel + CODEBOOK_WEIGHT * quantizer,
        "mel": mel.detach(),
        "codebook": quantized.codebook_loss.detach(),
        "commitment": quantized.commitment_loss.detach(),
    }


# --- plans ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodecPlan:
    """One round of LiteSNAC's training.

    seconds:  length of one crop;  starts: share of the crops that begin at the start of a sentence
    trains:   parts that may change; if only the decoder changes, codes keep their meaning
    reseed_until, reseed_every: reseed unused codes every so many steps, in this share of the round
    dropout:  quantizer dropout: share of the crops whose decoder gets one, two and all three levels. It makes the
              coarse codes carry as much of the word as they can. Source: SoundStream, arXiv 2107.03312, III-D
    wrong:    share of each level's codes that are replaced at random, to simulate a language model's errors
    features: weight of the loss `likeness.WhisperLikeness`
    heard:    weight of the loss `likeness.SoundsAlike`
    """

    name: str = "codec"
    steps: int = 3000
    batch: int = 16
    seconds: float = 1.0
    peak: float = 2e-3
    end: float = 2e-5
    reseed_until: float = 0.6
    reseed_every: int = 10
    dropout: tuple[float, float, float] = (0.0, 0.0, 1.0)
    wrong: tuple[float, float, float] = (0.0, 0.0, 0.0)
    features: float = 0.0
    trains: tuple[str, ...] = ("encoder", "quantizer", "decoder")
    starts: float = 0.0
    heard: float = 0.0


# The first round trains the sound. The next two move the words to the coarse levels: without them the finest level,
# which is the hardest to predict, tells the words apart. The last two train only the decoder, on full codes and with
# more beginnings of sentences, which are rare among random crops.
CODEC_PLANS = (
    CodecPlan(),
    CodecPlan("codec_words", 1500, peak=1e-3, dropout=(0.2, 0.3, 0.5), wrong=(0.0, 0.05, 0.15), features=1.0),
    CodecPlan("codec_polish", 1100, peak=7e-4, dropout=(0.2, 0.25, 0.55), wrong=(0.0, 0.05, 0.15), features=2.0,
              reseed_until=0.3),
    CodecPlan("codec_decoder", 500, peak=7e-4, reseed_until=0.0, trains=("decoder",), starts=0.25),
    CodecPlan("codec_heard", 900, 8, 1.5, peak=4e-4, reseed_until=0.0, trains=("decoder",), starts=0.25, heard=1.0),
)


# --- training ---------------------------------------------------------------------------------------------


def crops(waves: list[Tensor], seconds: float, batch: int, starts: float = 0.0) -> Iterator[Tensor]:
    """Random crops of speech, in proportion to the length of each wave: (B, 1, N) float32, gain 0.5 to 1.2."""
    length = int(seconds * CODEC_RATE)
    weights = torch.tensor([float(len(wave)) for wave in waves])
    while True:
        rows = []
        for index in torch.multinomial(weights, batch, replacement=True).tolist():
            wave = waves[index]
            start = int(torch.randint(-length // 4, max(1, len(wave) - length * 3 // 4), ()))
            if starts and torch.rand(()) < starts:
                start = 0
            row = torch.zeros(length)
            piece = wave[max(0, start) : max(0, start + length)].float() / 32768
            row[max(0, -start) : max(0, -start) + len(piece)] = piece
            rows.append(row)
        gain = torch.empty(batch, 1).uniform_(0.5, 1.2)
        yield (torch.stack(rows) * gain).unsqueeze(1)


def train_codec(codec: LiteSNAC, waves: list[Tensor], folder: Path, plan: CodecPlan = CODEC_PLANS[0],
                say: Callable[[str], None] = print, ears: Ears | None = None) -> None:
    """Train the codec by one plan.

    waves: int16 (N,) at 24 kHz;  ears: for plans with `features` or `heard`, on the codec's device
    """
    torch.manual_seed(0)
    device = codec.quantizer.quantizers[0].codebook.weight.device
    likeness = None
    if plan.features:
        assert ears is not None, "a plan with `features` needs Whisper"
        likeness = WhisperLikeness(codec.quantizer.quantizers[0].in_proj.in_channels, ears).to(device)
    alike = None
    if plan.heard:
        assert ears is not None, "a plan with `heard` needs Whisper"
        alike = SoundsAlike(ears)
    modules = codec if likeness is None else nn.ModuleDict(dict(codec=codec, likeness=likeness))
    last: dict[str, Any] = {}

    def batches(first: int) -> Iterator[Tensor]:
        return in_workers(lambda _: crops(waves, plan.seconds, plan.batch, plan.starts), device)

    def losses(crop: Tensor) -> dict[str, Tensor]:
        wav = crop.to(device)
        kept = 1 + torch.multinomial(torch.tensor(plan.dropout), plan.batch, replacement=True).to(device)
        with mixed_precision(device.type):
            reconstruction, quantized = codec(wav, kept, plan.wrong)
        last["quantized"] = quantized
        out = codec_loss(reconstruction, wav, quantized)
        if likeness is not None:
            out["features"] = likeness(wav, quantized)
            out["loss"] = out["loss"] + plan.features * out["features"]
        if alike is not None:
            out["heard"] = alike(reconstruction, wav)
            out["loss"] = out["loss"] + plan.heard * out["heard"]
        return out

    def after(step: int) -> None:
        if step % plan.reseed_every == 0 and step < plan.reseed_until * plan.steps:
            codec.reseed_unused_codes(last["quantized"])

    with only_training(codec, plan.name, plan.trains):
        trained = [p for p in modules.parameters() if p.requires_grad]
        loop = Loop(plan.name, modules, trained, plan.steps, plan.peak, plan.end, folder,
                    optimizers=partial(adamw, decay=WEIGHT_DECAY), say=say)
        loop.run(batches, losses, after)


@contextmanager
def only_training(codec: LiteSNAC, plan: str, trains: Sequence[str]) -> Iterator[None]:
    """Freeze the parts that a plan does not train, and check afterwards that they did not change."""
    for name, part in codec.named_children():
        part.requires_grad_(name in trains)
    held = {name: p.detach().clone() for name, p in codec.named_parameters() if not p.requires_grad}
    codec.train()
    try:
        yield
    finally:
        codec.requires_grad_(True).eval()
    for name, before in held.items():
        if not torch.equal(before, codec.get_parameter(name)):
            raise AssertionError(f"{plan} changed {name}, which is frozen in it: this is a bug of the loop.")
