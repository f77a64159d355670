"""The last stage: the voice hears itself several times, and learns to prefer the clearer rendition.

    a text --voice--> 8 renditions --codec--> sound --Whisper--> nats a token of the text, for each
    one of the clearest, and one that is less clear --> DPO --> the voice

What the voice says is drawn, and much of what a listener misses in its answers is bad luck: of four renditions of a
development answer, the one whose text Whisper finds likeliest has half of the errors of any. Nobody can choose so while
an answer is being spoken. But the voice can learn from such choices: which of its own draws were the lucky ones.

Shapes: letter legend in vocab.py.
Sources: DPO, arXiv 2305.18290; of speech tokens, SpeechAlign, arXiv 2404.05600; the likelihood of the better one beside
it, arXiv 2404.19733.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.model import Whisper

from omni_lite.audio import atomic_write
from omni_lite.by_ear import MIN_FRAMES, VOICE_NOISE, laid, own_answers, right_codes, voice_logits
from omni_lite.codec import LiteSNAC
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, SoundsAlike, WrittenAlike
from omni_lite.model import OmniModel
from omni_lite.precision import mixed_precision
from omni_lite.streams import IGNORE, Batch
from omni_lite.train import Loop, inner_matrices, with_noise
from omni_lite.vocab import FRAME_SAMPLES

TEMPERATURE = 0.2                            # at which the voice answers, and draws here
FRAMES_A_TOKEN, MORE_FRAMES = 3.2, 24        # after which a rendition is cut: more than anybody needs
UNENDED = 5.0                                # nats a token by which a rendition is worse that does not end by itself
AT_ONCE = 96                                 # renditions that are drawn together
LISTENED = 24                                # renditions that Whisper hears together
BEST_SHARE = 3                               # one in so many renditions of a text is good enough to be preferred
NEIGHBOURS = 60                              # texts of like length among which a batch is drawn
TRUE_ONES = 12                               # recordings' codes in each step


@dataclass(frozen=True)
class PreferencePlan:
    """One round: renditions by the voice as it is, then steps that teach it its own choice.

    texts:  how many are said, each `draws` times
    beta:   how far the voice may go from what it was: DPO's own, of log probabilities summed over an answer
    chosen: how much the likelihood of the better one counts by itself, in nats a code
    codes:  how much the right codes of recordings count, as in the phases before: the voice shall not forget them
    gap:    nats a token by which a rendition must be clearer than the one it is compared with
    """

    name: str
    texts: int = 3400
    draws: int = 8
    steps: int = 300
    batch: int = 16
    peak: float = 2e-4
    end: float = 1e-5
    beta: float = 0.1
    chosen: float = 0.2
    codes: float = 0.3
    gap: float = 0.1


# After a round the voice draws other renditions, of which the next one learns: more steps on the same only learn them
# by heart.
PREFERENCE_PLANS = (PreferencePlan("preference_1", steps=200), PreferencePlan("preference_2", steps=300))


@dataclass(frozen=True)
class Typed:
    """A question and its answer as tokens, and the answer as text."""

    question: tuple[int, ...]
    answer: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Renditions:
    """An answer as the voice said it several times: codes (7, T) of each, and how unclear each was, in nats a token."""

    said: Typed
    codes: list[Tensor]
    nats: list[float]


# Codes (7, T) that a recording has, of an answer to a question.
Recorded = tuple[tuple[int, ...], tuple[int, ...], Tensor]


# --- renditions, and how clear they are -------------------------------------------------------------------


@torch.no_grad()
def unclearness(codec: LiteSNAC, alike: SoundsAlike, written: WrittenAlike, codes: Sequence[Tensor],
                texts: Sequence[str]) -> Tensor:
    """How unlikely Whisper finds each text when it hears these codes, in nats a token: B of (7, T) -> (B,)"""
    device = codec.quantizer.quantizers[0].codebook.weight.device
    frames = max(MIN_FRAMES, *(one.shape[1] for one in codes))
    frames += -frames % 3                                                  # a multiple of six samples: `to_ear_rate`
    padded = torch.stack([F.pad(one, (0, frames - one.shape[1])) for one in codes]).to(device)
    lengths = torch.tensor([one.shape[1] for one in codes])
    inside = (torch.arange(frames) < lengths[:, None]).repeat_interleave(FRAME_SAMPLES, -1)[:, None].to(device)
    with mixed_precision(device.type):
        heard = alike.seen(codec.decode(padded) * inside)[-1]
        return written.nats(heard.float(), texts).cpu()


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


def say_often(model: OmniModel, codec: LiteSNAC, whisper: Whisper, typed: Sequence[Typed], plan: PreferencePlan,
              folder: Path, say: Callable[[str], None] = print) -> list[Renditions]:
    """Each answer `plan.draws` times, with Whisper's judgement; kept in a file, so that a killed run goes on."""
    path = folder / f"{plan.name}_draws.pt"
    groups = groups_of_one_length(typed, max(1, AT_ONCE // plan.draws))
    kept: dict[int, list[tuple[list[Tensor], list[float]]]] = torch.load(path) if path.exists() else {}
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
                                TEMPERATURE)
        nats = torch.zeros(len(many))
        order = sorted(range(len(many)), key=lambda i: codes[i].shape[1])
        for first in range(0, len(order), LISTENED):
            some = order[first : first + LISTENED]
            nats[some] = unclearness(codec, alike, written, [codes[i] for i in some], [many[i].text for i in some])
        nats += UNENDED * torch.tensor([one.shape[1] == limit for one, limit in zip(codes, limits, strict=True)])
        kept[number] = [([one.to(torch.int16) for one in codes[i : i + plan.draws]], nats[i : i + plan.draws].tolist())
                        for i in range(0, len(many), plan.draws)]
        if number % 50 == 49 or number + 1 == len(groups):
            say(f"{plan.name}  said {number + 1}/{len(groups)} groups of texts")
            with atomic_write(path) as temporary:
                torch.save(kept, temporary)
    return [Renditions(one, codes, nats) for number, group in enumerate(groups)
            for one, (codes, nats) in zip(group, kept[number], strict=True)]


def pairs_of(nats: Sequence[float], gap: float) -> list[tuple[int, int]]:
    """(better, worse): each of the clearest third against all that are less clear by more than `gap`."""
    order = sorted(range(len(nats)), key=lambda i: nats[i])
    best = order[: max(1, len(order) // BEST_SHARE)]
    return [(i, j) for i in best for j in order if nats[j] - nats[i] > gap]


# --- learning the choice ----------------------------------------------------------------------------------


def log_prob(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log probability of each answer's codes, its ends included, and how many they are: (B, S, 7, V) -> (B,), (B,)"""
    targets = batch.audio_target.transpose(1, 2)                           # (B, S, 7)
    said = targets != IGNORE
    found = logits.float().log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (found * said).sum((1, 2)), said.sum((1, 2))


def preference_loss(now: Tensor, before: Tensor, beta: float) -> Tensor:
    """DPO: log probabilities of B better answers, then of B worse ones, by the voice as it is and as it was: (2 B,)

    Source: arXiv 2305.18290, equation 7
    """
    better, worse = (beta * (now - before)).chunk(2)
    return -F.logsigmoid(better - worse).mean()


def prefer(model: OmniModel, codec: LiteSNAC, whisper: Whisper, typed: Sequence[Typed], recorded: Sequence[Recorded],
           folder: Path, plan: PreferencePlan, say: Callable[[str], None] = print) -> None:
    """One round of a plan: the voice says `typed`, and learns to say it as it was clearest. Nothing else changes.

    recorded: codes of recordings, which it goes on learning from beside
    """
    assert model.tts_adapter is not None, "a model without a TTS adapter has no voice of its own"
    device, vocab = model.bands.device, model.config.vocab
    model.requires_grad_(False)
    before = deepcopy(model).eval()
    rated = [(one, pairs) for one in say_often(model, codec, whisper, typed, plan, folder, say)
             if (pairs := pairs_of(one.nats, plan.gap))]
    if not rated:
        say(f"{plan.name}  no two renditions of a text differ by {plan.gap} nats: there is nothing to choose")
        model.requires_grad_(True)
        return
    rated.sort(key=lambda one: len(one[0].said.question) + min(codes.shape[1] for codes in one[0].codes))
    say(f"{plan.name}  {len(rated)} of {len(typed)} texts have renditions that differ")
    voice = list(model.tts_adapter.requires_grad_(True).parameters())

    def logits_of(voice_of: OmniModel, batch: Batch) -> Tensor:
        with mixed_precision(device.type):
            return voice_logits(voice_of, batch).float()

    def losses(step: int) -> dict[str, Tensor]:
        dice = random.Random(f"{plan.name} {step}")
        first = dice.randrange(max(1, len(rated) - NEIGHBOURS + 1))
        near = rated[first : first + NEIGHBOURS]
        some = [(one, dice.choice(pairs)) for one, pairs in dice.sample(near, min(plan.batch, len(near)))]
        codes = [one.codes[pair[k]].long() for k in (0, 1) for one, pair in some]
        batch = laid(vocab, [one.said.question for one, _ in some] * 2, [one.said.answer for one, _ in some] * 2,
                     codes).batch.to(device)
        with torch.no_grad():
            was, _ = log_prob(logits_of(before, batch), batch)
        now, length = log_prob(logits_of(model, batch), batch)
        better, worse = (now - was).detach().chunk(2)
        told = dict(preferred=preference_loss(now, was, plan.beta), chosen=-(now / length)[: len(some)].mean(),
                    right=(better > worse).float().mean())
        loss = told["preferred"] + plan.chosen * told["chosen"]
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


def some_typed(rows: Mapping[str, Sequence[Typed]], plan: PreferencePlan) -> list[Typed]:
    """Texts of all skills: a third is sentences to repeat ("repeat"), the rest of any skill alike.

    rows: of each skill
    """
    dice, skills = random.Random(plan.name), sorted(rows)
    return [dice.choice(rows["repeat" if i % 3 == 0 and "repeat" in rows else dice.choice(skills)])
            for i in range(plan.texts)]
