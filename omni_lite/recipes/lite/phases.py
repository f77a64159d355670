"""The lite recipe's phases: the paper's, with auxiliary losses and transforms that a small model needs.

"text" replaces the pretraining of Qwen2-0.5B. The paper's last stage trains everything once more. The lite recipe
splits it to make steps cheap: "ears" and "merged" train the ASR adapter, "reading" the trunk, "final" the voice.

Source: arXiv 2408.16725, table of phases; docs/recipe.md explains each stage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from omni_lite.recipes.attention import GuidedAttention, GuidedCopying
from omni_lite.recipes.ctc import CTC, Distillation
from omni_lite.recipes.lite.reading import AsTyped
from omni_lite.recipes.transforms import HideText, Mask, Noise
from omni_lite.train import EVERYTHING, LANGUAGE_MODEL, AuxiliaryLoss, Phase, Transform
from omni_lite.vocab import FRAME_ORDER, LEVEL_STRIDES


@dataclass(frozen=True)
class LitePhase(Phase):
    """A phase with the additions of the lite recipe.

    losses, transforms: see `train.train_phase`
    stream_weights: weight of a code of each audio stream, see `train.omni_loss`
    muon:     parts whose inner matrices Muon updates
    rates:    factors of the learning rate by part
    misheard: share of the written questions with errors, see `items.as_misheard`
    shuffled: share of the spoken answers that follow a random question: the voice must say what the text stream says
    teachers: earlier phases whose ASR adapters are the teachers of `ctc.Distillation`
    """

    losses: tuple[AuxiliaryLoss, ...] = ()
    transforms: tuple[Transform, ...] = ()
    stream_weights: tuple[float, ...] = ()
    muon: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    misheard: float = 0.0
    shuffled: float = 0.0
    teachers: tuple[str, ...] = ()


# Equal weight for the three levels of a frame, which have one, two and four codes: coarse codes carry the words.
# Source of the idea: Moshi, arXiv 2410.00037, section 3.4.4, where the first level has a weight of 100.
LEVELS_EQUAL = tuple(LEVEL_STRIDES[level] for level, _ in FRAME_ORDER)      # 4, 2, 1, 1, 2, 1, 1
COARSE_FIRST = (8, *LEVELS_EQUAL[1:])        # the coarse code has the weight of all others together

LITE_PHASES = (
    LitePhase("text", LANGUAGE_MODEL, {"T1T2": 0.3, "copy": 0.2, "slow T1T2": 0.15, "slow copy": 0.35}, 2300, 5e-3,
              2e-5, losses=(GuidedCopying(1.0),), muon=("trunk",), rates={"text_embed": 0.4}, misheard=0.2),
    LitePhase("phase1a", ("asr_adapter",), {"A1T1": 1.0}, 1500, 2e-3, 4e-6, 8192, rows=(), losses=(CTC(1.0),),
              muon=("asr_adapter",)),
    LitePhase("phase1b", ("audio_embed", "tts_adapter"), {"T1A2": 1.0}, 300, 5e-3, 5e-4, rows=("audio",),
              losses=(GuidedAttention(1.0),), transforms=(Noise(0.1),), stream_weights=LEVELS_EQUAL,
              muon=("tts_adapter",), rates={"audio_embed": 0.4}),
    LitePhase("phase2", LANGUAGE_MODEL, {"A1T1": 0.4, "A1T2": 0.18, "T1T2": 0.25, "slow T1T2": 0.07, "copy": 0.03,
                                         "slow copy": 0.07}, 1000, 2e-3, 2e-5, losses=(GuidedCopying(0.5),),
              muon=("trunk",), rates={"text_embed": 0.02}, misheard=0.3),
    LitePhase("phase3", EVERYTHING, {"A1A2": 0.12, "T1A2": 0.28, "A1T1": 0.20, "A1T2": 0.10, "T1T2": 0.22,
                                     "slow T1T2": 0.02, "copy": 0.02, "slow copy": 0.04}, 1600, 4e-3, 1e-5,
              losses=(GuidedAttention(0.3), GuidedCopying(0.5), CTC(1.0)), transforms=(Noise(0.05),),
              stream_weights=LEVELS_EQUAL, muon=("trunk", "asr_adapter", "tts_adapter"),
              rates={"text_embed": 0.01, "audio_embed": 0.4, "trunk": 0.5, "asr_adapter": 0.1}, misheard=0.2),
    LitePhase("ears", ("asr_adapter",), {"A1T1": 1.0}, 600, 2e-3, 4e-6, 8192, rows=(), losses=(CTC(1.0),),
              transforms=(Mask(1.0),), muon=("asr_adapter",)),
    LitePhase("merged", ("asr_adapter",), {"A1T1": 1.0}, 300, 2e-3, 4e-6, 8192, rows=(),
              losses=(CTC(0.3), Distillation()), transforms=(Mask(1.0),), muon=("asr_adapter",),
              teachers=("phase3", "ears")),
    LitePhase("reading", ("trunk",), {"pseudo T1T2": 0.45, "pseudo copy": 0.15, "pseudo A1A2": 0.1, "A1T2": 0.1,
                                      "A1T1": 0.1, "T1T2": 0.1}, 700, 1e-3, 1e-5, 5000, rows=("text",),
              losses=(AsTyped(1.0),), transforms=(Mask(0.6),), muon=("trunk",)),
    LitePhase("final", ("tts_adapter",), {"T1A2": 0.75, "A1A2": 0.25}, 4200, 4e-3, 1e-5, rows=("audio",),
              losses=(GuidedAttention(0.3),), transforms=(Noise(0.1), HideText(0.1)), stream_weights=COARSE_FIRST,
              muon=("tts_adapter",), shuffled=1.0),
)
