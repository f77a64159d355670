"""A later stage: the voice hears itself several times, and learns to prefer the clearer words.

    a text --voice--> 4 renditions --codec--> sound --Whisper--> nats of each word of the text, and where it is
    two renditions, and the words of which one is clearer --> DPO on the codes of these words alone --> the voice

What the voice says is drawn, and much of what a listener misses in its answers is bad luck: of four renditions of a
development answer, the one whose text Whisper finds likeliest has half of the errors of any. Nobody can choose so while
an answer is being spoken. But the voice can learn from such choices: which of its own draws were the lucky ones. Of an
answer of 200 codes some 20 cost the word. So what is compared are words, each where Whisper's decoder looked for it.

Shapes: letter legend in vocab.py.
Sources: DPO, arXiv 2305.18290; of speech tokens, SpeechAlign, arXiv 2404.05600; the likelihood of the better one beside
it, arXiv 2404.19733.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import astuple, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.model import Whisper

from omni_lite.audio import atomic_write
from omni_lite.by_ear import MIN_FRAMES, VOICE_NOISE, in_frames, laid, own_answers, right_codes, voice_logits
from omni_lite.codec import LiteSNAC
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, HeardWord, SoundsAlike, WrittenAlike
from omni_lite.model import OmniModel
from omni_lite.precision import mixed_precision
from omni_lite.streams import Batch
from omni_lite.train import Loop, inner_matrices, with_noise
from omni_lite.vocab import FRAME_SAMPLES, NUM_STREAMS

TEMPERATURE = 0.2                            # at which the voice answers, and draws here
FRAMES_A_TOKEN, MORE_FRAMES = 3.2, 24        # after which a rendition is cut: more than anybody needs
UNENDED = 5.0                                # nats by which the end is worse of a rendition that does not end by itself
AT_ONCE = 96                                 # renditions that are drawn together
LISTENED = 24                                # renditions that Whisper hears together
BEFORE, AFTERWARDS = 2, 2                    # frames around a word that count as its own: Whisper's look is not exact
MOST = 3.0                                   # nats above which a word is not worse any more: it is lost anyway
NEIGHBOURS = 60                              # texts of like length among which a batch is drawn
TRUE_ONES = 12                               # recordings' codes in each step


@dataclass(frozen=True)
class PreferencePlan:
    """One round: renditions by the voice as it is, then steps that teach it its own choice.

    texts:  how many are said, each `draws` times: many texts teach more than many renditions of each
    beta:   how far the voice may go from what it was: DPO's own, of log probabilities summed over a word
    chosen: how much the likelihood of the better one counts by itself, in nats a code
    codes:  how much the right codes of recordings count, as in the phases before: the voice shall not forget them
    gap:    nats by which a word must be clearer than the same word that it is compared with
    """

    name: str
    texts: int = 3000
    draws: int = 4
    steps: int = 200
    batch: int = 16
    peak: float = 2e-4
    end: float = 1e-5
    beta: float = 0.15
    chosen: float = 0.2
    codes: float = 0.3
    gap: float = 0.5


# After a round the voice draws other renditions, of which the next one learns: more steps on the same only learn them
# by heart.
PREFERENCE_PLANS = (PreferencePlan("preference_1"), PreferencePlan("preference_2", texts=6000, steps=400),
                    PreferencePlan("preference_3", texts=3400, steps=260))


@dataclass(frozen=True)
class Typed:
    """A question and its answer as tokens, and the answer as text."""

    question: tuple[int, ...]
    answer: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Renditions:
    """An answer as the voice said it several times: codes (7, T) of each, and what Whisper heard of its words."""

    said: Typed
    codes: list[Tensor]
    words: list[list[HeardWord]]


@dataclass(frozen=True)
class Choice:
    """Two renditions of an answer, by number, and the words that differ: (word, nats by which the first is clearer)."""

    first: int
    second: int
    words: list[tuple[int, float]]


# Some frames of one answer of a batch, and how much it counts that the first are likelier than the second.
Piece = tuple[int, slice]
Compared = tuple[Piece, Piece, float]

class Round(Protocol):
    """What `some_typed` and `say_often` want to know of a plan: all that let the voice say something tell it."""

    @property
    def name(self) -> str: ...
    @property
    def texts(self) -> int: ...
    @property
    def draws(self) -> int: ...


# Codes (7, T) that a recording has, of an answer to a question.
Recorded = tuple[tuple[int, ...], tuple[int, ...], Tensor]


# --- renditions, and how clear they are -------------------------------------------------------------------


@torch.no_grad()
def heard_words(codec: LiteSNAC, alike: SoundsAlike, written: WrittenAlike, codes: Sequence[Tensor],
                texts: Sequence[str]) -> list[list[HeardWord]]:
    """What Whisper hears of the words of each text when it hears these codes: B of (7, T)"""
    device = codec.quantizer.quantizers[0].codebook.weight.device
    frames = max(MIN_FRAMES, *(one.shape[1] for one in codes))
    frames += -frames % 3                                                  # a multiple of six samples: `to_ear_rate`
    padded = torch.stack([F.pad(one, (0, frames - one.shape[1])) for one in codes]).to(device)
    lengths = [one.shape[1] for one in codes]
    inside = (torch.arange(frames) < torch.tensor(lengths)[:, None]).repeat_interleave(FRAME_SAMPLES, -1)
    with mixed_precision(device.type):
        heard = alike.seen(codec.decode(padded) * inside[:, None].to(device))[-1]
        return written.words(heard.float(), texts, lengths)


def groups_of_one_length(typed: Sequence[Typed], size: int) -> list[list[Typed]]:
    """Answers to questions of as many tokens, which begin at the same step, with answers of about as many."""
    groups: list[list[Typed]] = []
    for one in sorted(typed, key=lambda one: (len(one.question), len(one.answer), one.question, one.text)):
        last = groups[-1] if groups else []
        if last and len(last) < size and len(last[0].question) == len(one.question):
            last.append(one)
        else:
            groups.append([one])
    return groups


def say_often(model: OmniModel, codec: LiteSNAC, whisper: Whisper, typed: Sequence[Typed], plan: Round,
              folder: Path, say: Callable[[str], None] = print, guidance: float = 1.0) -> list[Renditions]:
    """Each answer `plan.draws` times, with Whisper's judgement; kept in a file, so that a killed run goes on."""
    path = folder / f"{plan.name}_draws.pt"
    groups = groups_of_one_length(typed, max(1, AT_ONCE // plan.draws))
    kept: dict[int, list[tuple[list[Tensor], list[list[tuple]]]]] = torch.load(path) if path.exists() else {}
    alike, written = SoundsAlike(Ears(whisper.encoder), AFTER), WrittenAlike(whisper)
    model.eval()
    for number, group in enumerate(groups):
        if number in kept:
            continue
        torch.manual_seed(number)
        many = [one for one in group for _ in range(plan.draws)]
        limits = [round(FRAMES_A_TOKEN * len(one.answer)) + MORE_FRAMES for one in many]
        with mixed_precision(model.bands.device.type):
            codes = own_answers(model, [one.question for one in many], [one.answer for one in many], limits,
                                TEMPERATURE, guidance=guidance)
        words: list[list[HeardWord]] = [[] for _ in many]
        order = sorted(range(len(many)), key=lambda i: codes[i].shape[1])
        for first in range(0, len(order), LISTENED):
            some = order[first : first + LISTENED]
            heard = heard_words(codec, alike, written, [codes[i] for i in some], [many[i].text for i in some])
            for i, found in zip(some, heard, strict=True):
                if codes[i].shape[1] == limits[i]:
                    found[-1] = replace(found[-1], nats=found[-1].nats + UNENDED)
                words[i] = found
        kept[number] = [([one.to(torch.int16) for one in codes[i : i + plan.draws]],
                         [[astuple(word) for word in one] for one in words[i : i + plan.draws]])
                        for i in range(0, len(many), plan.draws)]
        if number % 50 == 49 or number + 1 == len(groups):
            say(f"{plan.name}  said {number + 1}/{len(groups)} groups of texts")
            with atomic_write(path) as temporary:
                torch.save(kept, temporary)
    return [Renditions(one, codes, [[HeardWord(*word) for word in rendition] for rendition in words])
            for number, group in enumerate(groups) for one, (codes, words) in zip(group, kept[number], strict=True)]


def choices_of(words: Sequence[Sequence[HeardWord]], gap: float) -> list[Choice]:
    """Every two renditions of a text of which some words differ by more than `gap`."""
    choices = []
    for first, second in combinations(range(len(words)), 2):
        by = [other.nats - one.nats for one, other in zip(words[first], words[second], strict=True)]
        differing = [(k, more) for k, more in enumerate(by) if abs(more) > gap]
        if differing:
            choices.append(Choice(first, second, differing))
    return choices


# --- learning the choice ----------------------------------------------------------------------------------


def log_prob(logits: Tensor, batch: Batch, codebook: int, frames: int) -> Tensor:
    """Log probability of the seven codes of each frame of answers: (B, S, 7, V) -> (B, frames), zeros after its last"""
    targets = batch.audio_target.transpose(1, 2)                           # (B, S, 7)
    found = logits.float().log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return in_frames(found, batch.audio_target, codebook, frames).sum(-1)


def pieces_of(choice: Choice, one: Renditions, first_row: int, second_row: int) -> list[Compared]:
    """Where the better and the worse rendition of each differing word are in a batch, and how much they differ."""
    found = []
    for k, more in choice.words:
        places = []
        for row, rendition in ((first_row, choice.first), (second_row, choice.second)):
            word, frames = one.words[rendition][k], one.codes[rendition].shape[1]
            first = max(0, min(frames - 1, int(word.first) - BEFORE))
            places.append((row, slice(first, max(first + 1, min(frames, int(word.end) + AFTERWARDS)))))
        better, worse = places if more > 0 else places[::-1]
        found.append((better, worse, min(abs(more), MOST)))
    return found


def preference_loss(now: Tensor, before: Tensor, compared: Sequence[Compared], beta: float) -> tuple[Tensor, Tensor]:
    """DPO of words, and the share of them that is right already.

    now, before: log probabilities of frames by the voice as it is and as it was, (B, frames) each
    Source: arXiv 2305.18290, equation 7, each word for itself
    """
    gained = now - before
    margins = torch.stack([beta * (gained[better].sum() - gained[worse].sum()) for better, worse, _ in compared])
    counts = torch.tensor([more for *_, more in compared], device=now.device)
    return -(counts * F.logsigmoid(margins)).sum() / counts.sum().clamp(min=1e-6), (margins > 0).float().mean()


def prefer(model: OmniModel, codec: LiteSNAC, whisper: Whisper, typed: Sequence[Typed], recorded: Sequence[Recorded],
           folder: Path, plan: PreferencePlan, say: Callable[[str], None] = print) -> None:
    """One round of a plan: the voice says `typed`, and learns to say words as they were clearer. Nothing else changes.

    recorded: codes of recordings, which it goes on learning from beside
    """
    assert model.tts_adapter is not None, "a model without a TTS adapter has no voice of its own"
    device, vocab = model.bands.device, model.config.vocab
    model.requires_grad_(False)
    before = deepcopy(model).eval()
    rated = [(one, choices) for one in say_often(model, codec, whisper, typed, plan, folder, say)
             if (choices := choices_of(one.words, plan.gap))]
    if not rated:
        say(f"{plan.name}  no word differs by {plan.gap} nats between two renditions: there is nothing to choose")
        model.requires_grad_(True)
        return
    rated.sort(key=lambda one: len(one[0].said.question) + min(codes.shape[1] for codes in one[0].codes))
    say(f"{plan.name}  {len(rated)} of {len(typed)} texts have words that differ between renditions")
    voice = list(model.tts_adapter.requires_grad_(True).parameters())

    def logits_of(voice_of: OmniModel, batch: Batch) -> Tensor:
        with mixed_precision(device.type):
            return voice_logits(voice_of, batch).float()

    def losses(step: int) -> dict[str, Tensor]:
        dice = random.Random(f"{plan.name} {step}")
        first = dice.randrange(max(1, len(rated) - NEIGHBOURS + 1))
        near = rated[first : first + NEIGHBOURS]
        some = [(one, dice.choice(choices)) for one, choices in dice.sample(near, min(plan.batch, len(near)))]
        codes = [one.codes[choice.first].long() for one, choice in some]
        codes += [one.codes[choice.second].long() for one, choice in some]
        batch = laid(vocab, [one.said.question for one, _ in some] * 2, [one.said.answer for one, _ in some] * 2,
                     codes).batch.to(device)
        longest = max(row.shape[1] for row in codes)
        with torch.no_grad():
            was = log_prob(logits_of(before, batch), batch, vocab.codebook, longest)
        now = log_prob(logits_of(model, batch), batch, vocab.codebook, longest)
        compared = [piece for row, (one, choice) in enumerate(some)
                    for piece in pieces_of(choice, one, row, len(some) + row)]
        preferred, right = preference_loss(now, was, compared, plan.beta)
        better = torch.cat([now[piece] for piece, *_ in compared])         # (frames of all the better words,)
        told = dict(preferred=preferred, chosen=-better.mean() / NUM_STREAMS, right=right)
        loss = preferred + plan.chosen * told["chosen"]
        if plan.codes and recorded:
            known = dice.sample(list(recorded), min(TRUE_ONES, len(recorded)))
            questions, answers, rows = zip(*known, strict=True)
            batch = with_noise(laid(vocab, questions, answers, rows), vocab, VOICE_NOISE).batch.to(device)
            told["codes"] = right_codes(logits_of(model, batch), batch)
            loss = loss + plan.codes * told["codes"]
        return dict(loss=loss) | told

    model.train()
    torch.manual_seed(0)
    Loop(plan.name, model.tts_adapter, voice, plan.steps, plan.peak, plan.end, folder, warmup=30,
         turned=inner_matrices(model, ("tts_adapter",)), say=say).run(losses)
    model.requires_grad_(True).eval()


def some_typed(rows: Mapping[str, Sequence[Typed]], plan: Round) -> list[Typed]:
    """Texts of all skills: a third is sentences to repeat ("repeat"), the rest of any skill alike.

    rows: of each skill
    """
    dice, skills = random.Random(plan.name), sorted(rows)
    return [dice.choice(rows["repeat" if i % 3 == 0 and "repeat" in rows else dice.choice(skills)])
            for i in range(plan.texts)]
