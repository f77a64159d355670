"""Every question and answer of VoiceAssistant-lite, and which split each belongs to.

A `Pair` is a fact, or a sentence to repeat, with its one right answer and several phrasings of the question.
"""

import random
import re
from itertools import chain
from pathlib import Path

import skills
from facts import DAYS
from wording import HELD_PHRASING, Pair, article, capitals, lower, sentence, spoken

# Plurals that `sentences.repeat_sentences` spells wrong, such as "wolfs": the set leaves such sentences out.
WRONG_PLURAL = re.compile(r"\b(?:wolf|calf|knife|sheep|deer|salmon|trout|goose|mouse|potato|\w+(?:[sx]|ch|sh)|"
                          r"\w*[^aeiou ]y)s\b")
# Skills that keep the answers of `unclear.txt`: their tables would have holes without "eight plus one".
WHOLE = ("small talk", "likes", "unknown", "arithmetic", "calendar", "counting", "numbers")
UNCLEAR = Path(__file__).with_name("unclear.txt")   # one answer a line, written by `build.py screen`

# Frames of the written questions and of some clips only, see `more_phrasings`: {n} is a noun phrase, {q} a question.
MORE_NOUN_FRAMES = (
    "Give me {n}.",
    "Let me know {n}.",
    "What would {n} be?",
    "{N}, please.",
    "{N}?",
    "How about {n}?",
    "I need {n}.",
    "What do you think {n} is?",
    "Can you say what {n} is?",
    "I wonder what {n} is.",
    "Remind me what {n} is.",
    "Could you explain what {n} is?",
    "I have to find out {n}.",
    "Let us see, what is {n}?",
)
OPENERS = ("Please, {q}", "Excuse me, {q}", "Okay, {q}", "Omni, {q}", "Hello, {q}", "I have a question: {q}",
           "Well, {q}", "So, {q}", "Now, {q}", "Listen: {q}", "My question is: {q}", "One more question: {q}",
           "And {q}", "Hi, {q}", "Hey Omni, {q}", "Sorry, {q}", "Good morning, {q}", "Just a quick question: {q}")
CLOSERS = ("please", "Omni", "if you can", "my friend")                     # of a request
QUESTION_CLOSERS = (*CLOSERS, "if I may ask", "do you know", "can you say")


def candidate_pairs(repeats: int = 4000, seed: int = 0) -> list[Pair]:
    """All pairs that could be in the set; the same seed gives the same list."""
    return list(chain(
        skills.small_talk(), skills.likes(), skills.arithmetic(), skills.capitals_both_ways(), skills.opposites(),
        skills.colors(), skills.calendar(), skills.animals(), skills.counting(), skills.numbers(), skills.spelling(),
        skills.categories(), skills.units(), skills.single_facts(), skills.unknown(),
        skills.to_repeat(repeats, random.Random(seed))))


def make_pairs(repeats: int = 4000, seed: int = 0) -> list[Pair]:
    """The pairs of the set, in a fixed order: the candidates without the answers of `unclear.txt`.

    Whisper tiny.en misunderstands those answers in every rendition of the answer voice. It would count a model's
    perfect answer as wrong, so the set leaves them out.
    """
    unclear = set(UNCLEAR.read_text(encoding="utf-8").splitlines()) if UNCLEAR.exists() else set()
    return [pair for pair in candidate_pairs(repeats, seed)
            if (pair.answer not in unclear or pair.skill in WHOLE)
            and not (pair.skill == "repeat" and WRONG_PLURAL.search(pair.answer))]


def noun_phrase(pair: Pair) -> str | None:
    """What a pair's questions ask for, such as "the capital of France"; None for skills without such a noun phrase."""
    about = pair.fact.split("/", 1)[1]
    subject, _, rest = pair.answer.rstrip(".").partition(" is ")
    if pair.skill == "capitals":
        to_capital = rest in dict(capitals()).values()
        return f"the capital of {about}" if to_capital else f"the country whose capital is {subject}"
    if pair.skill in ("opposites", "colors"):
        return lower(subject)
    if pair.skill == "calendar" and about.startswith("days in"):
        return f"the number of {about}"
    if pair.skill == "calendar":
        return f"the {'day' if about.split()[1] in DAYS else 'month'} {about}"
    if pair.skill == "numbers":
        return f"the number {about.split()[0]} {spoken(int(about.split()[1]))}"
    if pair.skill == "units":
        return f"the number of {about}"
    if pair.skill == "spelling":
        return f"the spelling of {about}"
    if pair.skill == "arithmetic":
        return about
    if pair.skill == "animals":
        animal, kind = about.rsplit(" ", 1)
        return {"sound": f"the sound of {article(animal)}", "legs": f"the number of legs of {article(animal)}",
                "young": f"the name of a young {animal}"}[kind]
    return None


def more_phrasings(pair: Pair, count: int = 16) -> list[str]:
    """More ways to ask for a pair: frames of its noun phrase, and words before or after a question.

    A model that has read a fact in ten wordings takes an eleventh one for another question. None of these is a held-out
    phrasing. Sentences to repeat get none: the model could not tell added words from words to repeat.
    The same pair always gets the same phrasings.
    """
    if pair.skill == "repeat":
        return []
    count = count // 4 if pair.skill == "unknown" else count               # many pairs with one answer
    rng = random.Random(f"more {pair.fact} {pair.answer}")
    known = [question for question in pair.questions if not question.startswith(HELD_PHRASING)]
    if not known:
        return []
    held = {question.lstrip(HELD_PHRASING) for question in pair.questions}
    noun = noun_phrase(pair)
    frames = rng.sample(MORE_NOUN_FRAMES, count // 2) if noun else []
    out = [frame.format(n=noun, N=sentence(noun or "")) for frame in frames]
    for _ in range(20 * count):
        if len(out) >= count:
            break
        question = rng.choice(known)
        if rng.random() < 0.7:
            new = rng.choice(OPENERS).format(q=lower(question))
        else:
            new = f"{question[:-1]}, {rng.choice(QUESTION_CLOSERS if question[-1] == '?' else CLOSERS)}{question[-1]}"
        if new not in held and new not in out:
            out.append(new)
    return out


def split_of(pairs: list[Pair], seed: int = 1) -> dict[str, str]:
    """fact -> "train" | "dev" | "test".

    Text pretraining reads the facts of "dev" and "test"; no training clip asks for them or says them. Each skill gives
    the same share, so that no easy skill dominates the score. Small talk, likes and unknown questions hold no facts and
    are all "train". Held-out sentences to repeat are new sentences.
    """
    rng = random.Random(seed)
    by_skill: dict[str, list[str]] = {}
    for pair in pairs:
        facts = by_skill.setdefault(pair.skill, [])
        if pair.fact not in facts[-2:]:
            facts.append(pair.fact)
    split: dict[str, str] = {}
    for skill, facts in by_skill.items():
        facts = list(dict.fromkeys(facts))
        rng.shuffle(facts)
        share = 0 if skill in ("small talk", "likes", "unknown") else len(facts)
        dev, test = round(0.04 * share), round(0.08 * share)
        for i, fact in enumerate(facts):
            split[fact] = "dev" if i < dev else "test" if i < dev + test else "train"
    return split
