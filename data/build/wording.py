"""A `Pair` of questions and one answer; how numbers, names and nouns are written in it."""

import random
import re
from dataclasses import dataclass, field
from functools import cache

from facts import CAPITALS, CATEGORIES, DAYS, MONTHS

# A phrasing that starts with this character is held out: no training text and no training clip has it. The test
# sets have it, to measure how the model understands other wordings.
HELD_PHRASING = "~"
WITHOUT_FACTS = ("repeat", "unknown", "likes", "small talk")               # skills without facts to hold out
ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen").split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclass
class Pair:
    """One answer and all the ways to ask for it.

    fact: its name, the same in both directions (capital and country). A held-out fact is held out in both
    """

    skill: str
    fact: str
    answer: str
    questions: list[str] = field(default_factory=list)


def spoken(n: int) -> str:
    """A number below 1000 in words: 144 -> "one hundred forty-four"."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    rest = n % 100
    return f"{ONES[n // 100]} hundred" + (f" {spoken(rest)}" if rest else "")


def sentence(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[0].upper() + text[1:]


def article(noun: str) -> str:
    """A noun with its article: "an owl", "a cat"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def lower(text: str) -> str:
    """The text with its first letter in lower case, unless it begins with a name or "I"."""
    return text if text.split()[0].strip(",.?") in names() else text[0].lower() + text[1:]


@cache
def names() -> frozenset[str]:
    """Words that begin with a capital letter in any place of a sentence."""
    places = {word for both in capitals() for name in both for word in name.split()}
    kinds = {name for line in CATEGORIES.split("\n") for name in line.split(":")[1].split() if name[0].isupper()}
    return frozenset(places | kinds | {*DAYS, *MONTHS, "I"})


def pick(rng: random.Random, options: str) -> str:
    """One of the texts between "|"."""
    return rng.choice(re.sub(r"\s*\n\s*", " ", options).split("|")).strip()


def table(rows: str) -> list[list[str]]:
    """The cells of a table: "a:b|c:d" -> [["a", "b"], ["c", "d"]]."""
    return [row.strip().split(":") for row in re.sub(r"\s*\n\s*", " ", rows).split("|")]


def capitals() -> list[tuple[str, str]]:
    """(country, capital) of `CAPITALS`, in which both may have several words."""
    flat = re.sub(r"\s+", " ", CAPITALS)
    heads = "New|North|South"
    return [(country, capital.strip()) for country, capital in re.findall(
        rf"((?:(?:{heads}) )?[A-Z]\w+):(.*?)(?=(?: (?:{heads}))? [A-Z]\w+:|$)", flat)]
