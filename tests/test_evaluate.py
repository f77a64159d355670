"""What counts as the same words, and the error rate over them."""

import random

import numpy as np
import pytest
import torch

from omni_lite import evaluate
from omni_lite.assistant import Reply
from omni_lite.data import Row
from omni_lite.evaluate import percent, shares, spoken_error, wer, words


@pytest.mark.parametrize("one, two", [
    ("Six plus eight is fourteen.", "6 + 8 = 14"),
    ("Twelve minus five is seven.", "12 - 5 is 7."),
    ("Seven, eight, nine, ten.", "7-8-9-10."),
    ("Cat is spelled C, A, T.", "cat is spelled C-A-T"),
    ("One, two, three.", "1, 2, 3"),
    ("One hundred forty-four comes after it.", "144 comes after it"),
    ("There are one hundred and twenty minutes.", "There are 120 minutes"),
    ("My favorite colour is gray", "My favourite color is grey!"),
    ("I don't know that yet.", "I don’t know that yet"),
    ("one thousand", "1,000"),
    ("Lion is spelled L, I, O, N.", "Lion is spelled LION"),
    ("Two is spelled T, W, O.", "Two is spelled T. W. O."),
])
def test_numerals_and_punctuation_do_not_count(one, two):
    assert words(one) == words(two)


def test_different_words_do_count():
    assert words("forty") != words("fourteen") and words("a cat") != words("the cat")
    assert words("six minus eight") != words("six plus eight") and words("two") != words("to")


@pytest.mark.parametrize("text, wanted", [
    ("Six plus 8 = 14.", "6 plus 8 is 1 4"), ("one, two, three, four", "1 2 3 4"), ("1, 2, 3, 4", "1 2 3 4"),
    ("C, A, T", "cat"), ("C-A-T", "cat"), ("B, O, X", "box"), ("I don't, I do", "i do not i do"), ("3x4", "3 times 4"),
    ("7 - 5", "7 minus 5"),
])
def test_words_as_whisper_writes_them_with_digits_apart(text, wanted):
    """"1 4" is one wrong word nearer to "1 5" than "14": digits stand alone on both sides."""
    assert words(text) == words(wanted) == wanted        # once is enough


def distance(a, b):
    """Edit distance, straight from its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_wer_is_the_edit_distance_over_all_words():
    dice = random.Random(0)
    for _ in range(20):
        ones = [[dice.choice("ab cd ef gh".split()) for _ in range(dice.randint(1, 5))] for _ in range(3)]
        twos = [[dice.choice("ab cd ef gh".split()) for _ in range(dice.randint(0, 5))] for _ in range(3)]
        wanted = 100 * sum(map(distance, ones, twos)) / sum(map(len, ones))
        assert wer([" ".join(x) for x in ones], [" ".join(x) for x in twos]) == pytest.approx(wanted)


def test_an_empty_measurement_is_refused():
    with pytest.raises(ValueError, match="at least one reference"):
        wer([""], ["a"])
    assert percent([True, False, True, True]) == 75.0


class Lucky:
    """Says "one two" with the first seed, and with any other only "one"."""

    def answer(self, question, task, seed):
        return Reply("one two", np.full(2400, seed, np.float32), first_audio_ms=1.0, total_ms=1.0)


def test_a_voice_is_judged_with_every_seed(monkeypatch):
    def heard(whisper, waves, rate):
        return ["one" if wave.any() else "one two" for wave in waves]

    monkeypatch.setattr(evaluate, "transcribe", heard)
    rows = [Row("test", i, "q", "one two", torch.zeros(1600)) for i in range(3)]
    assert [spoken_error(Lucky(), None, rows, seeds=seeds)["wer"] for seeds in (1, 2)] == [0, 25]
    assert spoken_error(Lucky(), None, rows, seeds=2)["wer_of_each_seed"] == [0, 50]


def test_shares_are_by_skill_and_by_engine():
    rows = [Row("test", i, "q", "a", skill="ab"[i % 2], voice=f"flite:{i}" if i < 2 else "pico:x") for i in range(4)]
    assert shares(rows, [True, False, True, True]) == {"a": 100.0, "b": 50.0, "voice flite": 50.0, "voice pico": 100.0}
