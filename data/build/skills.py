"""The pairs of each skill, made from the tables of `facts.py` and from sentences to repeat."""

import random
from collections.abc import Iterator

from facts import (
    ANIMALS,
    CATEGORIES,
    COLOURS,
    DAYS,
    FACTS,
    LIKES,
    MONTH_DAYS,
    MONTHS,
    OPPOSITES,
    SMALL_TALK,
    SPELL,
    UNCOUNTED,
    UNITS,
    UNKNOWN_FRAMES,
    UNKNOWN_OTHER,
    UNKNOWN_THINGS,
)
from sentences import REPEAT_FRAMES, repeat_sentences
from wording import HELD_PHRASING, Pair, article, capitals, sentence, spoken, table

# Ways to ask for what can be said as a noun phrase {n}, such as "the capital of France".
NOUN_FRAMES = (
    "What is {n}?",
    "What's {n}?",
    "Tell me {n}.",
    "Please tell me {n}.",
    "Can you tell me {n}?",
    "Could you tell me {n}, please?",
    "Do you know {n}?",
    "I would like to know {n}.",
    "Hey, what is {n}?",
    "Say {n}.",
    "Do you happen to know {n}?",
    "Okay, what is {n}?",
    "~I want to know {n}.",
    "~Please say what {n} is.",
)


def ask_for(noun: str, more: tuple[str, ...] = ()) -> list[str]:
    """Questions for a noun phrase in every frame, and some more of its own."""
    return [frame.format(n=noun) for frame in NOUN_FRAMES] + list(more)


def _pair(skill: str, fact: str, answer: str, questions: list[str]) -> Pair:
    return Pair(skill, f"{skill}/{fact}", answer, questions)


def small_talk() -> Iterator[Pair]:
    """Small talk: one answer each, many questions."""
    for key, (answer, questions) in SMALL_TALK.items():
        yield _pair("small talk", key, answer, [q.strip() for q in questions.split("|")])


def likes() -> Iterator[Pair]:
    """Questions of taste, each answered with yes."""
    for word in LIKES.split():
        thing = word.replace("_", " ")
        yield _pair("likes", thing, f"Yes, I like {thing} very much.", [
            f"Do you like {thing}?", f"Do you enjoy {thing}?", f"Tell me, do you like {thing}?",
            f"What do you think of {thing}?", f"How do you like {thing}?", f"~Are you fond of {thing}?"])


def arithmetic() -> Iterator[Pair]:
    """Sums, differences and products up to twelve."""
    for a in range(1, 13):
        for b in range(1, 13):
            x, y = spoken(a), spoken(b)
            for word, total, verbs in (("plus", a + b, (f"Add {x} and {y}.",)),
                                       ("times", a * b, (f"Multiply {x} by {y}.",)),
                                       ("minus", a - b, (f"Subtract {y} from {x}.", f"Take {y} away from {x}."))):
                if total < 0:
                    continue
                expression = f"{x} {word} {y}"
                yield _pair("arithmetic", expression, f"{sentence(expression)} is {spoken(total)}.", [
                    f"What is {expression}?", f"What's {expression}?", f"How much is {expression}?",
                    f"{sentence(expression)} is what?", f"Calculate {expression}.", f"{sentence(expression)}?",
                    f"Can you tell me what {expression} is?", f"Tell me what {expression} is.",
                    f"Please work out {expression}.", *verbs, f"~What do you get for {expression}?",
                    f"~Compute {expression}, please."])


def capitals_both_ways() -> Iterator[Pair]:
    """Country to capital and capital to country."""
    for country, capital in capitals():
        yield _pair("capitals", country, f"The capital of {country} is {capital}.", ask_for(
            f"the capital of {country}", (f"Which city is the capital of {country}?",
                                          f"Name the capital of {country}.",
                                          f"What is the capital city of {country}?",
                                          f"What city is the capital of {country}?")))
        yield _pair("capitals", country, f"{capital} is the capital of {country}.", [
            f"{capital} is the capital of which country?", f"Which country has the capital {capital}?",
            f"What country has {capital} as its capital?", f"Of which country is {capital} the capital?",
            f"{capital} is the capital of what country?", f"In which country is {capital}?",
            f"Tell me the country whose capital is {capital}.", f"~Whose capital is {capital}?"])


def opposites() -> Iterator[Pair]:
    """The opposites of both words of each pair."""
    for pair in OPPOSITES.split():
        for a, b in (pair.split(":"), reversed(pair.split(":"))):
            yield _pair("opposites", pair, f"The opposite of {a} is {b}.", ask_for(
                f"the opposite of {a}", (f"Which word is the opposite of {a}?",
                                         f"What word means the opposite of {a}?", f"Give me the opposite of {a}.",
                                         f"Name the opposite of {a}.")))


def colors() -> Iterator[Pair]:
    """The colors of things."""
    for thing, colour in table(COLOURS):
        yield _pair("colors", thing, f"The color of {thing} is {colour}.", [
            f"What color is {thing}?", f"Which color is {thing}?", f"Tell me the color of {thing}.",
            f"What is the color of {thing}?", f"Can you tell me what color {thing} is?",
            f"Which color does {thing} have?", f"What's the color of {thing}?", f"Do you know the color of {thing}?",
            f"~Name the color of {thing}."])


def calendar() -> Iterator[Pair]:
    """Which day or month comes before or after another, and how long months are."""
    for names, kind in ((DAYS, "day"), (MONTHS, "month")):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            for word, other, verb in (("after", after, "follows"), ("before", before, "precedes")):
                yield _pair("calendar", f"{word} {name}", f"{other} comes {word} {name}.", [
                    f"What {kind} comes {word} {name}?", f"Which {kind} comes {word} {name}?",
                    f"What comes {word} {name}?", f"Tell me the {kind} {word} {name}.",
                    f"Which {kind} is {word} {name}?", f"What is the {kind} {word} {name}?",
                    f"Can you tell me which {kind} comes {word} {name}?", f"Which {kind} {verb} {name}?",
                    f"~Name the {kind} {word} {name}."])
    for month, days in MONTH_DAYS.items():
        yield _pair("calendar", f"days in {month}", f"{month} has {spoken(days)} days.", [
            f"How many days are in {month}?", f"How many days does {month} have?", f"How long is {month}?",
            f"Tell me how many days {month} has.", f"What is the number of days in {month}?",
            f"How many days are there in {month}?", f"~Count the days of {month}."])


def animals() -> Iterator[Pair]:
    """The sound, the legs and the young of each animal."""
    for row in ANIMALS.split():
        animal, sound, legs, young = row.split(":")
        if sound != "-":
            yield _pair("animals", f"{animal} sound", f"The {animal} {sound}.", [
                f"What sound does {article(animal)} make?", f"Which sound does {article(animal)} make?",
                f"What noise does {article(animal)} make?", f"How does {article(animal)} sound?",
                f"Tell me the sound of {article(animal)}.", f"What does {article(animal)} say?",
                f"~Which noise does {article(animal)} make?"])
        count = "no legs" if legs == "0" else f"{spoken(int(legs))} legs"
        yield _pair("animals", f"{animal} legs", f"The {animal} has {count}.", [
            f"How many legs does {article(animal)} have?", f"How many legs has {article(animal)}?",
            f"Tell me how many legs {article(animal)} has.", f"What is the number of legs of {article(animal)}?",
            f"How many legs are on {article(animal)}?", f"~On how many legs does {article(animal)} stand?"])
        yield _pair("animals", f"{animal} young", f"A young {animal} is called {article(young)}.", [
            f"What is a young {animal} called?", f"What do you call a young {animal}?",
            f"What is a baby {animal} called?", f"What do you call a baby {animal}?",
            f"What's the name for a young {animal}?",
            f"Tell me the name of a young {animal}.", f"~How do we call a young {animal}?"])


def counting() -> Iterator[Pair]:
    """Counting up from one number to another, and down to one."""
    for start in range(0, 16):
        for stop in range(start + 2, min(start + 10, 21)):
            row = [spoken(n) for n in range(start, stop + 1)]
            asks = [f"Count from {row[0]} to {row[-1]}.", f"Please count from {row[0]} to {row[-1]}.",
                    f"Can you count from {row[0]} to {row[-1]}?", f"Start at {row[0]} and count to {row[-1]}.",
                    f"~Count up from {row[0]} to {row[-1]}."]
            if start == 1:
                asks += [f"Count to {row[-1]}.", f"Can you count to {row[-1]}?", f"Please count to {row[-1]}.",
                         f"Count up to {row[-1]}."]
            yield _pair("counting", f"{start} to {stop}", sentence(", ".join(row)) + ".", asks)
    for start in range(3, 11):
        row = [spoken(n) for n in range(start, 0, -1)]
        yield _pair("counting", f"down {start}", sentence(", ".join(row)) + ".", [
            f"Count down from {row[0]}.", f"Please count down from {row[0]}.", f"Count backwards from {row[0]}.",
            f"Can you count down from {row[0]}?", f"~Count back from {row[0]}."])


def numbers() -> Iterator[Pair]:
    """The numbers before and after a number."""
    for n in range(0, 100):
        for word, other in (("after", n + 1), ("before", n - 1)):
            if other < 0:
                continue
            yield _pair("numbers", f"{word} {n}", f"{sentence(spoken(other))} comes {word} {spoken(n)}.", [
                f"What number comes {word} {spoken(n)}?", f"Which number comes {word} {spoken(n)}?",
                f"What comes {word} {spoken(n)}?", f"Tell me the number {word} {spoken(n)}.",
                f"What is the number {word} {spoken(n)}?", f"Which number is {word} {spoken(n)}?",
                f"Can you tell me the number {word} {spoken(n)}?", f"~Name the number {word} {spoken(n)}."])


def spelling() -> Iterator[Pair]:
    """Words spelled letter by letter."""
    for word in dict.fromkeys(SPELL.split()):
        letters = ", ".join(word.upper())
        yield _pair("spelling", word, f"{sentence(word)} is spelled {letters}.", [
            f"How do you spell {word}?", f"Spell {word}.", f"Spell the word {word}.", f"Please spell {word}.",
            f"Can you spell {word}?", f"How is {word} spelled?", f"How do you spell the word {word}?",
            f"~What are the letters of {word}?"])


def categories() -> Iterator[Pair]:
    """What kind of thing something is."""
    for line in CATEGORIES.split("\n"):
        kind, members = line.strip().split(":")
        for member in members.split():
            plain = kind in ("planet", "language", "month", "country") or member in UNCOUNTED
            thing = member if plain else article(member)
            subject = member if plain else f"the {member}"
            yield _pair("categories", f"{member} {kind}", f"{sentence(subject)} is {article(kind)}.", [
                f"What kind of thing is {thing}?", f"What is {thing}?", f"Tell me what {thing} is.",
                f"What sort of thing is {thing}?", f"Which kind of thing is {thing}?", f"Do you know what {thing} is?",
                f"Can you tell me what {thing} is?", f"~What type of thing is {thing}?"])


def units() -> Iterator[Pair]:
    """How many of one thing are in another."""
    for things, whole, number in table(UNITS):
        count = spoken(int(number))
        are = f"There are {count} {things} in {whole}."
        yield _pair("units", f"{things} in {whole}", are, [
            f"How many {things} are in {whole}?", f"How many {things} are there in {whole}?",
            f"How many {things} does {whole} have?", f"Tell me how many {things} are in {whole}.",
            f"What is the number of {things} in {whole}?", f"{sentence(whole)} has how many {things}?",
            f"Do you know how many {things} are in {whole}?", f"~How many {things} make {whole}?"])


def single_facts() -> Iterator[Pair]:
    """Facts that each have a sentence of their own."""
    for line in FACTS.split("\n"):
        asks, answer = line.split("=")
        yield _pair("facts", answer, answer, asks.split("/"))


def unknown() -> Iterator[Pair]:
    """Questions that no other skill can answer. All of them have one answer."""
    for frame in UNKNOWN_FRAMES:
        held = frame.startswith(HELD_PHRASING)
        for thing in UNKNOWN_THINGS:
            question = frame.format(x=thing)
            asks = [question] if held else [
                question, f"Tell me, {question[0].lower()}{question[1:]}", f"Hey, {question}"]
            yield _pair("unknown", question.lstrip(HELD_PHRASING), "I don't know that yet.", asks)
    for question in UNKNOWN_OTHER.replace("\n", "").split("|"):
        yield _pair("unknown", question, "I don't know that yet.", [
            question, f"Please, {question[0].lower()}{question[1:]}", f"Hey, {question}"])


def to_repeat(count: int, rng: random.Random) -> Iterator[Pair]:
    """`count` sentences to repeat, all different."""
    names = [name for pair in capitals() for name in pair] + ["Africa", "Asia", "Europe", "America", "London",
                                                              "New York", "Mars", "Venus", "Jupiter", "Saturn"]
    seen: set[str] = set()
    stream = repeat_sentences(rng, names)
    while len(seen) < count:
        text = next(stream)
        if text in seen or len(text.split()) > 12:
            continue
        seen.add(text)
        frames = rng.sample(REPEAT_FRAMES[:-1], 3) + [REPEAT_FRAMES[-1]]
        yield _pair("repeat", text, text, [frame.format(s=text) for frame in frames])
