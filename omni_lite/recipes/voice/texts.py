"""What the voice learns to say: sentences of many kinds, drawn with a seed, none of the held-out synsets."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from omni_lite.recipes.voice.wordnet import Synset

PERSON, PLACE = 18, 15                       # WordNet's topics of nouns
PLAIN = re.compile(r"[A-Za-z][A-Za-z' ,;:\-?!.]*")
QUESTIONS = {
    "noun": (
        "What is {a}?", "Can you tell me about the {}?", "Please explain what {a} is.", "How do I use {a}?",
        "I would like to know more about {}.", "Where can I find {a}?", "Why is the {} important?",
        "Tell me a story about {a}.", "What is the difference between {a} and {b}?", "Do you know anything about {}?",
        "Is {a} the same as {b}?", "Who invented the {}?", "How much does {a} cost?", "I have never seen {a}.",
        "Sure, here is {a}.", "A {} is not {b}.", "You could also try the {}.", "The {} and the {other} are here.",
    ),
    "verb": (
        "How do I {}?", "Can you help me {}?", "Why would anyone {}?", "I want to {} today.",
        "What does it mean to {}?", "Please {} now.", "You should {} before you leave.", "We can {} and {other}.",
        "It is better to {} than to {other}.", "Do not {} until I say so.", "I am sorry, but I cannot {}.",
    ),
    "adj": (
        "It is very {}.", "Why is it so {}?", "That sounds {} to me.", "I feel {} and {other}.", "How {} is that?",
        "He was more {} than {other}.", "It does not have to be {}.",
    ),
    "adv": ("She did it {}.", "Speak {}, please.", "He moved {} and {other}.", "They answered {}."),
}
MONTHS = ("January February March April May June July August September October November December").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
UNITS = "kg km cm mm mph lb oz ml GB MB hours minutes seconds days percent degrees miles meters feet dollars".split()
SHORT = ("Yes. No. Sure. Of course. Certainly. Maybe. Hello. Hello there. Hi. Goodbye. Thank you. Thanks. You are "
         "welcome. I see. Okay. Right. Exactly. Correct. That is right. Not at all. Great question. Good idea. "
         "I do not know. I am not sure. Here you go. Let me think. Let me explain. For example. However. In short. "
         "First of all. Step one. Step two. To sum up. In other words. It depends. Good morning. Good night.")


@dataclass(frozen=True)
class Shares:
    """How many sentences of each kind; examples and definitions are limited by what WordNet has."""

    examples: int = 60_000
    definitions: int = 30_000
    questions: int = 16_000
    numbers: int = 9_000
    names: int = 5_000
    words: int = 8_000
    short: int = 1_500


def sentence(text: str, end: str = ".") -> str:
    """A text with a capital first and a stop last."""
    text = re.sub(r"\s+", " ", text).strip(" ;,:-")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else end)


def article(noun: str) -> str:
    """"a" or "an" before a noun; G2P needs no more than a good guess."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def speakable(text: str, least: int = 2, most: int = 24) -> bool:
    """Whether a text of WordNet is plain words, from `least` to `most` of them."""
    return bool(PLAIN.fullmatch(text)) and least <= len(text.split()) <= most and "--" not in text


def draw_texts(meanings: Iterable[Synset], shares: Shares, seed: int = 0,
               held_out: bool = False) -> list[tuple[str, str]]:
    """Sentences to say: (kind, text), without doubles, in random order.

    held_out: draw from the held-out synsets only, for development and test sets
    """
    rng = random.Random(f"voice texts {seed} {held_out}")
    own = [one for one in meanings if one.held_out == held_out]
    words, people, towns = by_part(own), names(own, PERSON), names(own, PLACE)
    kinds = dict(
        examples=[sentence(text) for one in own for text in one.examples if speakable(text)],
        definitions=[sentence(one.definition) for one in own if speakable(one.definition, 3)],
        questions=[question(rng, words) for _ in range(shares.questions)],
        numbers=[numeric(rng) for _ in range(shares.numbers)],
        names=[named(rng, people, towns) for _ in range(shares.names)],
        words=[spoken_word(rng, one) for one in rng.sample(own, min(len(own), 2 * shares.words)) if plain_word(one)],
        short=re.findall(r"[^.]+\.", SHORT) * (1 + shares.short // 40),
    )
    out = []
    for kind, texts in kinds.items():
        if kind != "short":
            texts = list(dict.fromkeys(texts))
        rng.shuffle(texts)
        out += [(kind, text.strip()) for text in texts[: getattr(shares, kind)]]
    rng.shuffle(out)
    return out


def plain_word(one: Synset) -> bool:
    """Whether the first word of a meaning is letters alone."""
    return bool(re.fullmatch(r"[A-Za-z]+( [A-Za-z]+)?", one.words[0]))


def by_part(meanings: Sequence[Synset]) -> dict[str, list[str]]:
    """Part of speech -> plain words."""
    return {part: [word for one in meanings if one.part == part for word in one.words
                   if re.fullmatch(r"[A-Za-z]+( [a-z]+)?", word)] for part in QUESTIONS}


def names(meanings: Sequence[Synset], topic: int) -> list[str]:
    """Names of one or two words: of people or of places."""
    return [word for one in meanings if one.part == "noun" and one.topic == topic for word in one.words
            if re.fullmatch(r"[A-Z][a-z]+( [A-Z][a-z]+)?", word)]


def question(rng: random.Random, words: dict[str, list[str]]) -> str:
    """A question or a short answer around a word or two."""
    part = rng.choices(list(QUESTIONS), (8, 5, 2, 1))[0]
    word, other = rng.choice(words[part]), rng.choice(words[part])
    return sentence(rng.choice(QUESTIONS[part]).format(word, a=article(word), b=article(other), other=other))


def spoken_word(rng: random.Random, one: Synset) -> str:
    """One word alone, or named: rare words get a place where they are heard clearly."""
    form = rng.choice(("{}.", "{}.", "{}?", "The word is {}.", "{} and {}.", "It is called {}.", "{}, for example."))
    return sentence(form.format(one.words[0], rng.choice(one.words)))


def number(rng: random.Random) -> int:
    """A natural number; small ones are more probable."""
    return rng.randrange(10 ** rng.choices((1, 2, 3, 4, 6, 9), (4, 6, 5, 3, 2, 1))[0])


def numeric(rng: random.Random) -> str:
    """A sentence with numbers, money, dates, times, measures, phone numbers or lists."""
    n, m = number(rng), number(rng)
    year, day, hour, minute = rng.randrange(1400, 2060), rng.randint(1, 28), rng.randint(1, 12), rng.randrange(60)
    cents = f"{rng.randrange(1000)}.{rng.randrange(100):02d}"
    date = rng.choice((f"{rng.choice(MONTHS)} {day}, {year}", f"the {day}th of {rng.choice(MONTHS)}", f"{year}"))
    date = date.replace("1th", "1st").replace("2th", "2nd").replace("3th", "3rd").replace("11st", "11th")
    date = date.replace("12nd", "12th").replace("13rd", "13th")
    phone = f"{rng.randint(200, 999)}-{rng.randint(200, 999)}-{rng.randint(1000, 9999)}"
    return rng.choice((
        f"The answer is {n}.", f"{n} plus {m} is {n + m}.", f"{n} minus {m} is {n - m}.", f"It costs ${cents}.",
        f"You owe me ${n}.", f"The total is ${cents}, or about {rng.randint(1, 99)}%.", f"It happened in {year}.",
        f"She was born on {date}.", f"We met on {rng.choice(DAYS)}, {date}.", f"It starts at {hour}:{minute:02d}.",
        f"Let us meet at {hour}:{minute:02d} {rng.choice(('am', 'pm', 'a.m.', 'p.m.'))}.", f"Call {phone}.",
        f"My number is {phone}.", f"It weighs {n} {rng.choice(UNITS)}.", f"{n:,} people live here.",
        f"It is {rng.randrange(100)}.{rng.randrange(10)} {rng.choice(UNITS)} long.",
        f"About {rng.randint(1, 99)}% of them agree.", f"There are {n:,} people here.",
        f"Chapter {rng.randint(1, 40)}.",
        f"Turn to page {rng.randint(2, 900)}.", f"He finished {rng.randint(4, 20)}th.",
        f"{rng.randint(1, 20)}. {rng.choice(DAYS)}.", f"One half, one third, {rng.randint(2, 9)}/{day + 9}.",
        f"{n}, {m}, {n + 1}, and {m + 2}.", f"In the {rng.randrange(1800, 2030, 10)}s it was different.",
        f"It is {rng.randrange(-20, 110)} degrees outside.", f"Room {rng.randint(100, 999)} is on floor {day}.",
        f"{rng.choice(DAYS)}, {rng.choice(DAYS)}, and {rng.choice(DAYS)}.", f"{hour} times {day} is {hour * day}.",
    ))


def named(rng: random.Random, people: Sequence[str], places: Sequence[str]) -> str:
    """A sentence with people and places."""
    who, other, place, far = rng.choice(people), rng.choice(people), rng.choice(places), rng.choice(places)
    title = rng.choice(("Mr.", "Mrs.", "Dr.", "Ms.", "Professor"))
    return sentence(rng.choice((
        f"My name is {who}.", f"{title} {who.split()[-1]} lives in {place}.", f"{who} and {other} went to {place}.",
        f"The capital is {place}.", f"Have you ever been to {place}?", f"From {place} to {far} it is a long way.",
        f"{other} wrote a letter to {who}.", f"{place}, {far}, and {rng.choice(places)}.", f"Who is {who}?",
        f"{who} was born in {place}.", f"Good morning, {title} {who.split()[-1]}.", f"{place} is larger than {far}.",
    )))
