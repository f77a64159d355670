"""The voice's last stage: it learns the words that it has met least, and goes on saying what it says clearly.

    texts --guided voice--> 4 renditions --codec, Whisper--> the clearer two of each --.
    recordings of rare words, and of answers --codec's encoder--> takes of each -------+--> cross-entropy --> the voice

Recordings alone would teach it words and take back what the stages before have taught it: which of many good codes a
listener understands best (by_ear.py, preference.py). So it learns from renditions of its own as well, where a listener
understood them. They were guided (`Sampling.guidance`): what it says when it is led, it comes to say by itself.

The voice after such lessons says some words better and as many others worse than before. A mean of its weights before
and after says both better than either: so it ends a part of the way.

Sources: lessons from own answers that passed a test, STaR, arXiv 2203.14465, and ReST, arXiv 2308.08998; the way
between the weights before and after, WiSE-FT, arXiv 2109.01903.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from omni_lite.evaluate import ONES, TENS
from omni_lite.likeness import HeardWord
from omni_lite.model import OmniModel
from omni_lite.preference import Recorded, Renditions
from omni_lite.streams import Task
from omni_lite.train import LITE_PHASES, Corpus, Phase, train_phase

# Whisper writes "80" as readily as "eighty": what it doubts of the word tells nothing of the voice.
NUMBERS = frozenset([*ONES, *TENS[2:], "hundred", "thousand"])
MOST = 5.0                                   # nats above which a word is not worse any more: it is lost anyway


@dataclass(frozen=True)
class RehearsalPlan:
    """Renditions by the voice as it is, then steps on the clear ones and on recordings.

    texts, draws: as in `PreferencePlan`; half as many texts again are of the shards `others` beside the answers
    guidance: with which they are drawn
    clear:    nats a word that Whisper may doubt of a rendition
    rare, own: shares of the lessons that are recordings of rare words, and renditions; the rest are recorded answers
    way:      how far the weights go from where they were to where these steps lead
    """

    name: str
    texts: int = 2000
    others: tuple[str, ...] = ("spoken", "spoken_crossed")
    draws: int = 4
    guidance: float = 1.4
    clear: float = 0.6
    rare: float = 0.5
    own: float = 0.35
    steps: int = 4000
    peak: float = 1e-3
    end: float = 1e-5
    way: float = 0.3

    @property
    def phase(self) -> Phase:
        """As the voice's last phase, but typed questions alone, and no hint where to look."""
        return replace(LITE_PHASES[-1], name=self.name, mixture={Task.T1A2: 1.0}, steps=self.steps, peak=self.peak,
                       end=self.end, guide=0.0, restarts=(), last=1.0)


REHEARSAL = RehearsalPlan("rehearsal")
LESSONS = 60_000                             # of which the three kinds have their shares


def doubt(words: Sequence[HeardWord]) -> float:
    """Nats a word that Whisper doubts of a rendition, its end included and numbers left out."""
    nats = [min(word.nats, MOST) for word in words if re.sub("[^a-z]", "", word.text.lower()) not in NUMBERS]
    return sum(nats) / len(nats)


def clear_ones(said: Sequence[Renditions], most: float) -> list[Recorded]:
    """The clearer half of the renditions of each text, but for those that are doubted more than `most` nats a word."""
    found = []
    for one in said:
        order = sorted(range(len(one.codes)), key=lambda i: doubt(one.words[i]))
        found += [(one.said.question, one.said.answer, one.codes[i].long()) for i in order[: max(1, len(order) // 2)]
                  if doubt(one.words[i]) <= most]
    return found


def lessons_of(piles: Mapping[str, Sequence[Recorded]], plan: RehearsalPlan, total: int = LESSONS) -> list[Recorded]:
    """So many of each pile, "rare", "own" and "recorded", as the plan wants, each lesson of a pile equally often."""
    shares = dict(rare=plan.rare, own=plan.own, recorded=1 - plan.rare - plan.own)
    lessons: list[Recorded] = []
    for name, share in shares.items():
        pile, count = piles[name], round(total * share)
        if count and not pile:
            raise ValueError(f"There is nothing {name} to rehearse: let its share be zero in {plan.name}.")
        lessons += [pile[i % len(pile)] for i in range(count)]
    return lessons


def rehearse(model: OmniModel, tokenizer: Tokenizer, questions: Sequence[tuple[int, ...]],
             piles: Mapping[str, Sequence[Recorded]], takes: Mapping[tuple[int, ...], Sequence[Tensor]], folder: Path,
             plan: RehearsalPlan, say: Callable[[str], None] = print) -> None:
    """Train the voice on, and nothing else; it goes `plan.way` of the way.

    questions: any of which each lesson answers, so that it is said for what it is
    piles:     (question, answer, codes (7, T)): "rare" and "recorded" ones, and what `clear_ones` left of its "own"
    takes:     further codes of the recordings of an answer
    """
    asked = [(0, question, question, None) for question in questions]
    corpus = Corpus(tokenizer, [], [], [], asked, lessons_of(piles, plan), None,
                    {answer: [(codes, None) for codes in some] for answer, some in takes.items()})
    say(f"{plan.name}  " + ", ".join(f"{len(some)} {name}" for name, some in piles.items()))
    assert model.tts_adapter is not None, "a model without a TTS adapter has no voice of its own"
    before = {name: p.detach().clone() for name, p in model.tts_adapter.named_parameters()}
    train_phase(model, plan.phase, corpus, folder, say=say)
    with torch.no_grad():
        for name, p in model.tts_adapter.named_parameters():
            p.lerp_(before[name], 1 - plan.way)
