"""How well is the voice understood? The same texts, said by the voice and by its teacher, for the same recognisers.

Whisper tiny.en hears both; no stage of the recipe uses Whisper. The differences count: what both get wrong is the
recogniser's, the text's or G2P's.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import jiwer
import numpy as np
import torch
from torch import Tensor
from whisper.model import Whisper

from omni_lite.audio import to_mono_rate
from omni_lite.chat.llm import ChatModel
from omni_lite.evaluate import transcribe, wer, words
from omni_lite.recipes.voice.answers import draw_questions, spoken_texts
from omni_lite.recipes.voice.speech import TRIM
from omni_lite.recipes.voice.teacher import RATE, Teacher
from omni_lite.recipes.voice.texts import MONTHS, PERSON, PLACE, names
from omni_lite.recipes.voice.wordnet import Synset
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FRAME_SAMPLES
from omni_lite.voice.folder import Mouth
from omni_lite.voice.speak import Speaker, VoiceSampling, reader
from omni_lite.voice.words import plain_text

PAUSE = np.zeros(RATE // 5, np.float32)      # between the teacher's sentences
LONG_WORDS = 330                             # about two minutes
ENDS_S = 30                                  # of a long answer, to compare


@dataclass(frozen=True)
class Said:
    """A text that was said.

    wave: (N,) at 24 kHz;  starts: frame at which each sentence begins
    """

    wave: np.ndarray
    starts: tuple[int, ...] = ()


# --- what is said -------------------------------------------------------------------------------------------


def open_texts(chat: ChatModel, meanings: Sequence[Synset], count: int = 300) -> list[str]:
    """One text of SmolLM2's answer to each of several questions about held-out words, greedily."""
    found: list[str] = []
    for question in draw_questions(meanings, 2 * count, held_out=True):
        answer = "".join(chat.reply([dict(role="user", content=question)], limit=64))
        found += [text for text in spoken_texts(answer)[:1] if text not in found and len(text.split()) <= 50]
        if len(found) == count:
            break
    return found


def hard_texts(meanings: Sequence[Synset], count: int = 100) -> list[str]:
    """Names, numbers, money, years, dates, telephone numbers, quotes, bold words, single words, long sentences."""
    rng = random.Random("hard")
    held = [one for one in meanings if one.held_out]
    people, places = names(held, PERSON), names(held, PLACE)
    nouns = [one.words[0] for one in held if one.part == "noun" and one.words[0].isalpha() and one.words[0].islower()]
    glosses = [one.definition for one in held if one.definition.replace(" ", "").isalpha()]

    def long() -> str:
        text = " and ".join(rng.sample(glosses, 12)).split()
        return " ".join(text[:60]).capitalize() + "."

    kinds: tuple[Callable[[], str], ...] = (
        lambda: f"{rng.choice(people)} and {rng.choice(people)} live in {rng.choice(places)}.",
        lambda: f"It costs ${rng.randrange(1, 400)}.{rng.randrange(100):02d}, not ${rng.randrange(1, 90)}.",
        lambda: f"In {rng.randrange(1500, 2030)} there were {rng.randrange(1001, 9999):,} of them.",
        lambda: f"Please call {rng.randint(200, 999)}-{rng.randint(200, 999)}-{rng.randint(1000, 9999)} today.",
        lambda: f"“{rng.choice(nouns).capitalize()} is a word,” she said, “and so is {rng.choice(nouns)}.”",
        lambda: f"This is **{rng.choice(nouns)}**, which is *not* {rng.choice(nouns)}.",
        lambda: rng.choice(nouns).capitalize() + ".",
        lambda: f"On {rng.choice(MONTHS)} {rng.randint(1, 28)}, {rng.randrange(1800, 2030)}, at "
                f"{rng.randint(1, 12)}:{rng.randint(10, 59)} p.m.",
        lambda: f"Add {rng.randrange(2, 100)}.{rng.randrange(1, 10)} kg of {rng.choice(nouns)}, about "
                f"{rng.randrange(2, 99)}%.",
        long,
    )
    return [kinds[i % len(kinds)]() for i in range(count)]


# --- saying it ----------------------------------------------------------------------------------------------


def say(mouth: Mouth, text: str, sampling: VoiceSampling) -> Said:
    """The voice's sound of a text."""
    steps = list(Speaker(mouth.voice, reader(), sampling).steps(iter([text])))
    frames = [step.frame for step in steps if step.frame is not None]
    if not frames:
        return Said(np.zeros(CODEC_RATE // 10, np.float32))
    stream = mouth.codec.stream()
    wave = torch.cat([stream.push(torch.stack(frames, 1)[None]), stream.flush()], -1)[0, 0].numpy()
    of_frame = [step.sentence for step in steps[: len(frames)]]
    return Said(wave, tuple(i for i, one in enumerate(of_frame) if i == 0 or one != of_frame[i - 1]))


def teacher_says(teacher: Teacher, text: str, seed: int) -> Said:
    """The teacher's sound of a text."""
    waves = [teacher.say(one, seed).wave[TRIM:] for one in teacher.phonemize(plain_text(text))]
    return Said(np.concatenate([part for wave in waves for part in (wave, PAUSE)]) if waves else PAUSE)


# --- figures ------------------------------------------------------------------------------------------------


def skipped_or_repeated(texts: Sequence[str], heard: Sequence[str], by_teacher: Sequence[str]) -> float:
    """Percent of the words that are missing only from the voice, or that follow themselves.

    A word that the recogniser misses in the teacher's speech too does not count.
    """
    count, faults = 0, 0
    for text, one, other in zip(map(words, texts), map(words, heard), map(words, by_teacher), strict=True):
        wanted = text.split()
        count += len(wanted)
        faults += len(missing(text, one) - missing(text, other))
        faults += sum(a == b for a, b in zip(one.split(), one.split()[1:], strict=False) if not a.isdigit()) - sum(
            a == b for a, b in zip(wanted, wanted[1:], strict=False) if not a.isdigit())
    return round(100 * faults / max(1, count), 2)


def missing(text: str, heard: str) -> set[int]:
    """Positions of the words of a text that were not heard, nor another word in their place."""
    chunks = jiwer.process_words(text, heard).alignments[0] if text and heard else []
    return {i for chunk in chunks if chunk.type == "delete" for i in range(chunk.ref_start_idx, chunk.ref_end_idx)}


def dnsmos(waves: Sequence[np.ndarray]) -> float:
    """Mean DNSMOS, overall, 1 to 5."""
    from speechmos import dnsmos as judge

    scores = [judge.run(to_mono_rate(wave, CODEC_RATE, EAR_RATE).clamp(-1, 1).numpy(), sr=EAR_RATE)["ovrl_mos"]
              for wave in waves if len(wave) > CODEC_RATE // 2]
    return round(fmean(map(float, scores)), 3)


def compare(mouth: Mouth, teacher: Teacher, whisper: Whisper, texts: Sequence[str],
            sampling: VoiceSampling) -> dict[str, Any]:
    """WER, skips, and DNSMOS of the voice and of its teacher on the same texts."""
    ours = [say(mouth, text, sampling).wave for text in texts]
    theirs = [teacher_says(teacher, text, seed).wave for seed, text in enumerate(texts)]
    plain = [plain_text(text) for text in texts]
    heard, by_teacher = (listen(whisper, waves) for waves in (ours, theirs))
    mine, own = wer(plain, heard), wer(plain, by_teacher)
    return dict(
        texts=len(texts), wer=round(mine, 2), teacher_wer=round(own, 2), points=round(mine - own, 2),
        skipped_or_repeated=skipped_or_repeated(plain, heard, by_teacher),
        dnsmos=dnsmos(ours), teacher_dnsmos=dnsmos(theirs),
        seconds=round(sum(map(len, ours)) / CODEC_RATE), teacher_seconds=round(sum(map(len, theirs)) / RATE),
        transcripts=[dict(text=t, voice=h, teacher=b) for t, h, b in zip(plain, heard, by_teacher, strict=True)])


def listen(whisper: Whisper, waves: Sequence[np.ndarray]) -> list[str]:
    """Whisper's transcripts."""
    return transcribe(whisper, [torch.from_numpy(wave) for wave in waves], CODEC_RATE)


def long_answers(mouth: Mouth, whisper: Whisper, texts: Sequence[str], sampling: VoiceSampling,
                 answers: int = 4) -> dict[str, Any]:
    """WER of the last 30 s of answers of two minutes, minus that of the first 30 s.

    Each sentence is cut out where the pointer entered it and is transcribed alone.
    """
    pieces: dict[str, list[tuple[str, Tensor]]] = dict(first=[], last=[])
    rest, lengths = iter(texts), []
    for _ in range(answers):
        chosen: list[str] = []
        while sum(len(text.split()) for text in chosen) < LONG_WORDS and (text := next(rest, "")):
            chosen.append(text)
        said = say(mouth, " ".join(chosen), sampling)
        lengths.append(len(said.wave) / CODEC_RATE)
        sentences = [one for text in chosen for one in reader().split(plain_text(text))]
        borders = [*(start * FRAME_SAMPLES for start in said.starts), len(said.wave)]
        cut = [(text, torch.from_numpy(said.wave[a:b]))
               for text, a, b in zip(sentences, borders[:-1], borders[1:], strict=True)]
        for name, some in (("first", cut), ("last", cut[::-1])):
            seconds = 0.0
            for text, wave in some:
                if seconds < ENDS_S:
                    pieces[name].append((text, wave))
                    seconds += len(wave) / CODEC_RATE
    found = {name: wer([text for text, _ in some], transcribe(whisper, [wave for _, wave in some], CODEC_RATE))
             for name, some in pieces.items()}
    return dict(answers=answers, seconds=round(fmean(lengths)), first=round(found["first"], 2),
                last=round(found["last"], 2), points=round(found["last"] - found["first"], 2))


def judge_voice(mouth: Mouth, whisper: Whisper, chat: ChatModel, meanings: Sequence[Synset],
                sampling: VoiceSampling, share: float = 1.0) -> dict[str, Any]:
    """All figures of the voice; share: of the texts, for a quick look."""
    teacher, easy = Teacher(), open_texts(chat, meanings, int(300 * share))
    return dict(open=compare(mouth, teacher, whisper, easy, sampling),
                hard=compare(mouth, teacher, whisper, hard_texts(meanings, int(100 * share)), sampling),
                long=long_answers(mouth, whisper, easy, sampling))
