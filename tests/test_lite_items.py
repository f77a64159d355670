"""What the lite phases draw: how items are laid out, and what is scrambled, misheard and shuffled."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from omni_lite.data import Deck, FeatureStore, Item, draw_items, gather, store_features
from omni_lite.recipes.lite.items import LiteItem, as_misheard, scramble
from omni_lite.streams import IGNORE, Task
from tests.training import VOCAB, small_corpus


@pytest.fixture
def corpus(tmp_path):
    return small_corpus(tmp_path)


# --- layout ------------------------------------------------------------------------------------------------


def test_reading_back_is_announced_by_asr():
    laid = LiteItem(Task.T1T2, (1, 2, 3), (1, 2, 3), copy=True).lay_out(VOCAB, 0)
    assert laid.text_in.tolist() == [VOCAB.input_t, 1, 2, 3, VOCAB.eot, VOCAB.asr, 1, 2, 3]
    assert laid.text_target.tolist() == [IGNORE] * 5 + [1, 2, 3, VOCAB.eot]


def test_slow_text_is_laid_out_as_if_it_were_heard():
    random.seed(0)
    slow = LiteItem(Task.A1T2, (1, 2, 3), (4, 5), slow=True).lay_out(VOCAB, 0)
    end = slow.text_in.tolist().index(VOCAB.eot)
    heard = Item(Task.A1T2, (1, 2, 3), (4, 5), 0).lay_out(VOCAB, end - 1)
    assert [token for token in slow.text_in[1:end].tolist() if token != VOCAB.pad_t] == [1, 2, 3]
    assert torch.equal(slow.text_in[end:], heard.text_in[end:])
    for name in ("audio_in", "text_target", "audio_target"):
        assert torch.equal(getattr(slow, name), getattr(heard, name))


def test_slow_text_needs_no_features(tmp_path):
    store_features(tmp_path / "f.f16", iter([(torch.ones(1, 8, 4), torch.tensor([8]))]))
    store = FeatureStore(tmp_path / "f.f16", 4)
    items = [LiteItem(Task.A1T1, (1, 2), (1, 2), slow=True), LiteItem(Task.A1T1, (3,), (3,), 0)]
    heard = gather(items, [items[0].lay_out(VOCAB, 0), items[1].lay_out(VOCAB, 2)], VOCAB, store)
    assert heard.lengths.tolist() == [0, 8] and heard.said == [(), (3,)]
    assert gather(items[:1], [items[0].lay_out(VOCAB, 0)], VOCAB, store).features is None


def test_a_plain_lite_item_is_laid_out_as_the_core_does():
    codes = torch.arange(21).view(7, 3) % 4
    for task in Task:
        clip = 0 if task.hears else -1
        theirs = Item(task, (1, 2), (3, 4), clip, codes).lay_out(VOCAB, 5)
        ours = LiteItem(task, (1, 2), (3, 4), clip, codes).lay_out(VOCAB, 5)
        for name in ("text_in", "audio_in", "text_target", "audio_target"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), (task, name)


# --- samplers ----------------------------------------------------------------------------------------------


def test_a_misheard_question_loses_doubles_and_mistakes_some_tokens():
    random.seed(1)
    question = tuple(range(100, 110))
    heard = [as_misheard(question, range(100)) for _ in range(2000)]
    kept = [sum(token in one for token in question) / 10 for one in heard]
    assert 0.90 < sum(kept) / len(kept) < 0.94                          # 7 of 100 are lost or mistaken for others
    doubled = sum(a == b for one in heard for a, b in zip(one, one[1:], strict=False)) / 20_000
    wrong = sum(token < 100 for one in heard for token in one) / 20_000
    assert 0.03 < doubled < 0.045 and 0.04 < wrong < 0.055
    assert as_misheard(question, range(100), share=1e-9) == question


def test_an_answer_that_repeats_its_question_is_never_misheard(corpus):
    corpus = replace(corpus, written=[((1, 2, 3, 4), (3, 4, 9))])
    stream = corpus.draw({"T1T2": 1.0}, misheard=1.0)
    assert all(next(stream).question == (1, 2, 3, 4) for _ in range(50))


def test_scrambled_texts_hold_known_tokens_and_are_seldom_the_text_itself():
    random.seed(0)
    text, other = tuple(range(8)), tuple(range(20, 25))
    some = [scramble(text, other, [1, 5, 30]) for _ in range(200)]
    assert all(one and set(one) <= {*text, *other, 30} for one in some)
    assert sum(one == text for one in some) < 5 and len(set(some)) > 100


def test_a_shuffled_question_leaves_the_answer_with_its_codes(corpus):
    random.seed(0)
    codes_of = {answer: codes for _, answer, codes in corpus.spoken}
    own = {answer: question for question, answer, _ in corpus.spoken}
    for task in ("T1A2", "A1A2"):
        for share, least in ((0.0, 0), (1.0, 10)):
            stream = corpus.draw({task: 1.0}, shuffled=share)
            items = [next(stream) for _ in range(60)]
            assert all(torch.equal(item.codes, codes_of[item.answer]) for item in items)
            assert all(corpus.heard[item.clip][1] == item.question for item in items if task == "A1A2")
            others = sum(item.question != own[item.answer] for item in items)
            assert others >= least and (share > 0 or others == 0)


def test_one_of_the_takes_of_an_answer_is_spoken(corpus):
    random.seed(0)
    takes = [(torch.full((7, 2), i), torch.tensor([1.0, 2.0 + i])) for i in range(3)]
    stream = replace(corpus, takes={(3, 4): takes}).draw({"T1A2": 1.0})
    items = [next(stream) for _ in range(60)]
    spoken = {(int(item.codes[0, 0]), float(item.turns[1])) for item in items if item.answer == (3, 4)}
    assert spoken == {(0, 2.0), (1, 3.0), (2, 4.0)}
    assert all(item.turns is None for item in items if item.answer != (3, 4))


def test_a_deck_deals_each_entry_once_before_any_again():
    random.seed(0)
    deck = Deck("abcde")
    rounds = [[deck.deal() for _ in range(5)] for _ in range(4)]
    assert all(sorted(one) == list("abcde") for one in rounds) and len({tuple(one) for one in rounds}) > 1
    assert len(deck) == 5 and deck[2] == "c"


def test_kinds_are_drawn_by_their_shares_and_an_unknown_one_is_named(corpus):
    random.seed(0)
    one, other = Item(Task.T1T2, (1,)), Item(Task.T1T2, (2,))
    stream = draw_items({"one": 3.0, "other": 1.0}, {"one": lambda: one, "other": lambda: other})
    found = Counter(next(stream).question for _ in range(400))
    assert 260 < found[(1,)] < 340
    with pytest.raises(ValueError, match="no sampler for 'T9T9': choose kinds from copy,"):
        next(corpus.draw({"T1T2": 1.0, "T9T9": 1.0}))
    with pytest.raises(AssertionError, match="snippets"):
        next(corpus.draw({"pseudo T1T2": 1.0}))
