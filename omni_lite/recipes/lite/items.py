"""Training examples of the lite phases: the paper's five tasks and further kinds."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from tokenizers import Tokenizer
from torch import Tensor

from omni_lite.data import Deck, FeatureStore, Item, draw_items
from omni_lite.recipes.lite.snippets import Emission, Snippets
from omni_lite.streams import Batch, Example, Task, collate, example
from omni_lite.vocab import Vocab

SCRAMBLED = 0.8                              # share of nonsense among the texts to copy

Ids = tuple[int, ...]


@dataclass(frozen=True)
class LiteItem(Item):
    """A training example with layouts that the paper does not have.

    turns:    (tokens,) end of each answer token's turn in frames, see `ctc.turns_of`; None: unknown
    copy:     copy a written question after the special token `asr`
    slow:     an A1 task with its question written at the pace of speech
    emission: an A1 task without a clip, see `snippets.py`
    """

    turns: Tensor | None = None
    copy: bool = False
    slow: bool = False
    emission: Emission | None = None

    @property
    def hears(self) -> bool:
        """The question is sound from the feature store."""
        return self.task.hears and not self.slow and self.emission is None

    def lay_out(self, vocab: Vocab, positions: int) -> Example:
        """The eight streams of this item.

        `copy` is T1T2 with a prompt that ends in `asr`: the model copies the question. `slow` has the layout of a
        spoken question, with the tokens spread over the text stream in the place of the sound. It prepares the frozen
        language model for phase 1a: the adapter only has to put a word's vector where the word is spoken.
        """
        places = pace(len(self.question)) if self.slow else []
        if self.emission is not None:
            positions = len(self.emission)
        laid = example(
            vocab,
            self.task,
            question_text=None if self.task.hears else self.question,
            positions=places[-1] if self.slow else positions if self.task.hears else None,
            answer_text=self.answer,
            answer_codes=self.codes if self.task.speaks else None,
        )
        if not (self.slow or self.copy):
            return laid
        text_in = laid.text_in.clone()
        if self.slow:
            text_in[torch.tensor(places[:-1]) + 1] = torch.tensor(self.question)     # step 0 is input_t
        else:
            text_in[len(self.question) + 2] = vocab.asr
        return replace(laid, text_in=text_in)


def pace(tokens: int) -> list[int]:
    """Random positions of tokens at the pace of speech, then the end of the question.

    A token takes one to six of the 12.5 positions a second: about three tokens a second.
    """
    places = [random.randint(1, 4)]
    for _ in range(tokens):
        places.append(places[-1] + random.randint(1, 6))
    return places


def typed_too(items: Sequence[Item], vocab: Vocab) -> Batch:
    """The same questions typed, with the same answers and therefore the same targets of the text stream in order."""
    twins = [LiteItem(Task.T1A2 if item.task.speaks else Task.T1T2, item.question, item.answer, codes=item.codes,
                      copy=item.task == Task.A1T1 or getattr(item, "copy", False)) for item in items]
    return collate([twin.lay_out(vocab, 0) for twin in twins], vocab)


@dataclass
class Corpus:
    """All material of the lite phases, as token ids.

    written: (question, answer) pairs of text pretraining, mostly facts.
    copied:  sentences to copy.
    transcribed: (clip, transcript), also of sentences without an answer.
    heard:   (clip, question, answer, codes of the answer or None); several clips may have one question.
    spoken:  (question, answer, codes).
    takes:   for aligned answers, several (codes, turns) of one recording, cut into frames at different offsets.
    snippets: pieces of the ASR adapter's output, for the "pseudo" kinds.
    """

    tokenizer: Tokenizer
    written: Sequence[tuple[Ids, Ids]]
    copied: Sequence[Ids]
    transcribed: Sequence[tuple[int, Ids]]
    heard: Sequence[tuple[int, Ids, Ids, Tensor | None]]
    spoken: Sequence[tuple[Ids, Ids, Tensor]]
    store: FeatureStore | None
    takes: Mapping[Ids, Sequence[tuple[Tensor, Tensor | None]]] = field(default_factory=dict)
    snippets: Snippets | None = None

    def draw(self, mixture: Mapping[str, float], misheard: float = 0.0, shuffled: float = 0.0) -> Iterator[Item]:
        """Items forever, by the mixture.

        misheard: share of the written questions with errors, see `as_misheard`; not if the answer repeats the question
        shuffled: share of the spoken answers that follow a random question
        """
        return draw_items(mixture, Samplers(self, misheard, shuffled).by_kind())

    def take(self, answer: Ids, codes: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """A random take of an answer: codes, and the end of each token's turn or None."""
        takes = self.takes.get(answer, ())
        return random.choice(takes) if takes else (codes, None)


class Samplers:
    """One function for each kind of item; each deals its material in random order."""

    def __init__(self, corpus: Corpus, misheard: float, shuffled: float) -> None:
        self.corpus, self.misheard, self.shuffled = corpus, misheard, shuffled
        self.tokens = range(corpus.tokenizer.get_vocab_size())
        self.written, self.copied = Deck(corpus.written), Deck(corpus.copied)
        self.transcribed, self.heard, self.spoken = map(Deck, (corpus.transcribed, corpus.heard, corpus.spoken))

    def by_kind(self) -> dict[str, Callable[[], Item]]:
        """The function of every kind in a phase's mixture."""
        return {
            "copy": partial(self.copy, slow=False), "slow copy": partial(self.copy, slow=True),
            Task.T1T2: partial(self.text, slow=False), "slow T1T2": partial(self.text, slow=True),
            "pseudo T1T2": self.pseudo_text, "pseudo copy": self.pseudo_copy, "pseudo A1A2": self.pseudo_spoken,
            Task.T1A2: self.read_aloud, Task.A1T1: self.transcript,
            Task.A1T2: partial(self.answer, Task.A1T2), Task.A1A2: partial(self.answer, Task.A1A2),
        }

    def copy(self, slow: bool) -> Item:
        text = self.copied.deal()
        if random.random() < SCRAMBLED:
            text = scramble(text, random.choice(self.copied), self.tokens)
        return LiteItem(Task.A1T1 if slow else Task.T1T2, text, text, copy=not slow, slow=slow)

    def text(self, slow: bool) -> Item:
        question, answer = self.written.deal()
        if random.random() < self.misheard and not set(answer[:-1]) <= set(question):
            question = as_misheard(question, self.tokens)
        return LiteItem(Task.A1T2 if slow else Task.T1T2, question, answer, slow=slow)

    def pseudo_text(self) -> Item:
        question, answer = self.written.deal()
        return LiteItem(Task.A1T2, question, answer, emission=self._emission(question))

    def pseudo_copy(self) -> Item:
        question, _ = self.written.deal()
        return LiteItem(Task.A1T1, question, question, emission=self._emission(question))

    def pseudo_spoken(self) -> Item:
        question, answer, codes = self.spoken.deal()
        codes, turns = self.corpus.take(answer, codes)
        return LiteItem(Task.A1A2, question, answer, codes=codes, turns=turns, emission=self._emission(question))

    def _emission(self, question: Ids) -> Emission:
        assert self.corpus.snippets is not None, "the pseudo kinds need snippets"
        return self.corpus.snippets.place(question)

    def read_aloud(self) -> Item:
        question, answer, codes = self.spoken.deal()
        if self.shuffled and random.random() < self.shuffled:
            question = random.choice(self.heard)[1]
        codes, turns = self.corpus.take(answer, codes)
        return LiteItem(Task.T1A2, question, answer, codes=codes, turns=turns)

    def transcript(self) -> Item:
        clip, said = self.transcribed.deal()
        return LiteItem(Task.A1T1, said, said, clip)

    def answer(self, task: Task) -> Item:
        clip, question, answer, codes = self.heard.deal()
        if self.shuffled and task == Task.A1A2 and random.random() < self.shuffled:
            _, answer, codes = self.spoken.deal()
        codes, turns = self.corpus.take(answer, codes)
        return LiteItem(task, question, answer, clip, codes, turns)


def scramble(text: tuple[int, ...], other: tuple[int, ...], tokens: Sequence[int]) -> tuple[int, ...]:
    """A nonsense text to copy: random tokens, the same tokens shuffled, or parts of two texts, a third each.

    Without scrambled texts a small language model memorises the sentences and does not learn to copy: it copies only a
    third of the tokens of held-out sentences.
    """
    kind = random.randrange(3)
    if kind == 0:
        return tuple(random.choices(tokens, k=random.randint(2, 12)))
    if kind == 1:
        return tuple(random.sample(text, len(text)))
    return text[: random.randint(1, len(text))] + other[random.randrange(len(other)) :]


def as_misheard(question: Sequence[int], tokens: Sequence[int], share: float = 0.12) -> tuple[int, ...]:
    """A written question with ASR errors: a share of its tokens is deleted, doubled or replaced.

    It makes facts that training shows only as text robust to errors in spoken questions.
    """
    out: list[int] = []
    for token in question:
        fault = random.random() / share
        if fault < 0.3:                      # deleted
            continue
        out.append(random.choice(tokens) if fault < 0.7 else token)
        if 0.7 <= fault < 1:                 # doubled
            out.append(token)
    return tuple(out) or tuple(question)
