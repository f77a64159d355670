"""From an LLM's pieces of text to phonemes, while the text is still being written.

hibari's G2P (Apache-2.0; a dictionary, a tagger and a small network, without espeak) reads numbers, money, dates, units
and abbreviations too. Here its sentences are fed word by word.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

# These wait for the next word, which may change their sound or stress: "the end", "to do", "used to", "in that".
WAITING = frozenset((
    *"a am an and are as at be been but by can could did do does for from get got had has have".split(),
    *"he her him his i in is it just may me might must my of off on or our out over".split(),
    *"she should so some such than that the their them then there these they this those".split(),
    *"through to up us used was we were will with would you your".split(),
))
# After these the next word may change the sound: "5 km", "Jan. 5", "Dr. Lee".
NEEDS_NEXT = re.compile(r"[\d$€£¥#&@/]|^(Dr|Mr|Mrs|Ms|St|Prof|No|vol)\.$", re.I)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
MARKDOWN = re.compile(
    r"[*_`~]{1,3}(?=\S)|(?<=\S)[*_`~]{1,3}"  # **bold**, `code`
    r"|^\s{0,3}#{1,6}\s+|^\s*[-*+•>]\s+"    # headings, lists, quotations
    r"|^\s*\|?[-|:\s]+\|\s*$", re.M)        # rulers of tables
QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "\u00a0": " ", "–": "-", "\u200b": None})


def plain_text(text: str) -> str:
    """Without Markdown, emoji and curly quotes: what remains is said."""
    text = MARKDOWN.sub("", LINK.sub(r"\1", text.translate(QUOTES)))
    return "".join(one for one in text if unicodedata.category(one) not in ("So", "Sk", "Cn", "Co", "Cs", "Mn"))


@dataclass
class Sentence:
    """A sentence as far as it is known: its words in phonemes, and whether they are all."""

    words: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def phonemes(self) -> str:
        return " ".join(self.words)


@dataclass
class Reader:
    """Collects pieces of text and hands out sentences in phonemes; the last one may still grow.

    phonemize: G2P of one sentence, words apart;  split: text -> sentences
    """

    phonemize: Callable[[str], str]
    split: Callable[[str], list[str]]
    sentences: list[Sentence] = field(default_factory=list)
    _text: str = ""                          # since the last complete sentence

    def feed(self, piece: str) -> None:
        """Add what the LLM wrote."""
        self._text += piece
        self._read(done=False)

    def finish(self) -> None:
        """No more text comes: the last sentence is complete."""
        self._read(done=True)

    def _read(self, done: bool) -> None:
        *lines, last = self._text.split("\n")
        ended = [one for line in lines for one in self.split(plain_text(line))]
        growing = self.split(plain_text(last))
        ended += growing if done else growing[:-1]
        for text in ended:
            self._say(text, complete=True)
        if done and self.sentences and not self.sentences[-1].complete:
            self.sentences[-1].complete = True
        rest = "" if done or not growing else growing[-1] + " " * last[-1:].isspace()
        if done or ended or lines:
            self._text = rest
        complete, known = known_words(rest)
        if known:
            self._say(complete, complete=False, most=len(self.phonemize(known).split()))

    def _say(self, text: str, complete: bool, most: int | None = None) -> None:
        """Add the words that the sentence did not have, up to `most`; what was handed out stays."""
        words = self.phonemize(text).split()[:most] if text.strip() else []
        if not words:
            return
        if not self.sentences or self.sentences[-1].complete:
            self.sentences.append(Sentence())
        sentence = self.sentences[-1]
        sentence.words += words[len(sentence.words) :]
        sentence.complete = complete


def known_words(text: str) -> tuple[str, str]:
    """The complete words of a text that grows, and those of them whose sound the rest cannot change."""
    words = text.split(" ")[:-1]             # the last may still grow
    keep = len(words)
    while keep and (NEEDS_NEXT.search(words[keep - 1]) or words[keep - 1].lower().strip(",;:\"'()") in WAITING):
        keep -= 1
    return " ".join(words), " ".join(words[:keep])
