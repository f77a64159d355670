"""The voice's parts: a step equals the whole, sentences do not see each other, no word is skipped, text may grow."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from omni_lite.recipes.voice.answers import draw_questions, spoken_texts
from omni_lite.recipes.voice.judge import hard_texts, skipped_or_repeated
from omni_lite.recipes.voice.speech import Utterance, pointer_of
from omni_lite.recipes.voice.stages import voice_recipe
from omni_lite.recipes.voice.teacher import Spoken
from omni_lite.recipes.voice.texts import PERSON, PLACE
from omni_lite.recipes.voice.train import VoicePlan, batches, pack, stays, voice_loss
from omni_lite.recipes.voice.wordnet import Synset, read_line
from omni_lite.streams import IGNORE
from omni_lite.vocab import FRAME_SAMPLES
from omni_lite.voice.model import Voice, VoiceCache, VoiceConfig
from omni_lite.voice.speak import Speaker, g2p
from omni_lite.voice.words import Reader, plain_text
from tests import assert_one_sentence

TINY = VoiceConfig("abcdefg .", codebook=16, width=16, blocks=2, heads=2, hidden=32, text_width=8, window=5)


@pytest.fixture
def voice() -> Voice:
    torch.manual_seed(0)
    return Voice(TINY).eval()


def utterance(seed: int, phonemes: int = 20) -> Utterance:
    rng = np.random.default_rng(seed)
    frames = phonemes + 4
    pointer = np.sort(rng.integers(0, phonemes, frames))
    pointer[-1] = phonemes - 1
    return Utterance(rng.integers(1, 9, phonemes), pointer, rng.integers(0, 16, (7, frames)))


def split(text: str) -> list[str]:
    """Sentences that end with a stop and a space."""
    return [one for one in text.replace(". ", ".\0").strip().split("\0") if one.strip()]


def test_steps_with_a_cache_give_what_the_whole_sequence_gives(voice):
    plan = VoicePlan(batch=1, length=24)
    batch = next(batches([utterance(seed) for seed in range(4)], TINY, plan, 0))
    with torch.no_grad():
        codes, advance = voice(batch.ids, batch.pointer, batch.stay, batch.past)
        around, cache = voice.surroundings(voice.text(batch.ids), batch.pointer), VoiceCache()
        for s in range(24):
            one, move = voice.step(around[:, s : s + 1], batch.stay[:, s : s + 1], batch.past[:, :, s : s + 1], cache)
            torch.testing.assert_close(one, codes[:, :, s])
            torch.testing.assert_close(move, advance[:, s])
    assert cache.blocks is not None and cache.blocks[0][0].shape[2] == TINY.window - 1


def test_a_packed_sentence_is_read_as_if_it_stood_alone(voice):
    first, second = utterance(1), utterance(2)
    ids, *_ = pack([first, second], TINY, 48)
    alone = voice.text(torch.from_numpy(second.phonemes)[None])
    packed = voice.text(torch.from_numpy(ids)[None])
    at = len(first.phonemes) + TINY.lookahead
    torch.testing.assert_close(packed[:, at : at + len(second.phonemes)], alone)


def test_packing_delays_stream_i_by_i_steps_and_counts_the_advance_over_sentences():
    first, second = utterance(1), utterance(2)
    _, pointer, stay, past, codes, advance = pack([first, second], TINY, 48)
    whole = np.concatenate([first.codes, second.codes], axis=1)
    for i in range(7):
        assert (codes[i, :i] == IGNORE).all() and (codes[i, i:] == whole[i, : 48 - i]).all()
    assert (past[:, 0] == TINY.codebook).all() and (past[0, 1:] == whole[0, :47]).all()
    border = len(first.pointer) - 1
    assert advance[border] == 1 + second.pointer[0] and advance[-1] == IGNORE
    assert (np.diff(first.pointer) == advance[:border]).all()


def test_stays_count_steps_without_a_move():
    assert stays(np.array([0, 0, 0, 1, 3, 3]), 3).tolist() == [0, 1, 2, 0, 0, 1]


def test_the_loss_reaches_every_parameter(voice):
    batch = next(batches([utterance(seed) for seed in range(4)], TINY, VoicePlan(batch=2, length=24), 0))
    loss = voice_loss(voice, batch, VoicePlan())["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in voice.parameters())


def test_the_pointer_is_the_phoneme_in_the_middle_of_a_frame():
    spoken = Spoken("abc", 0, np.array([1, 3, 4]) * FRAME_SAMPLES, np.zeros(6 * FRAME_SAMPLES, np.float32))
    assert pointer_of(spoken, 6).tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_says_every_phoneme_in_order_and_ends(voice, temperature):
    reader = Reader(lambda text: text, split)
    speaker = Speaker(voice, reader)
    seen: list[tuple[int, int]] = []
    inner = speaker.move

    def move(by: int) -> None:
        seen.append((speaker.pointer.sentence, speaker.pointer.phoneme))
        inner(by if temperature else 1)

    speaker.move = move                      # type: ignore[method-assign]
    steps = list(speaker.steps(iter(["abc ", "de? ", "fg. ", "cab ", "bad."])))
    assert seen == sorted(seen) and reader.sentences[-1].complete
    assert "".join(step.text for step in steps) == "abc de? fg. cab bad."
    if not temperature:                      # one phoneme a step; "?" is unknown to the voice and takes no time
        assert seen == [(0, i) for i in range(len("abc de fg."))] + [(1, i) for i in range(len("cab bad."))]
    frames = [step.frame for step in steps if step.frame is not None]
    assert len(frames) == len(seen), "every step before the delayed streams run out is a frame"
    assert all(int(frame.max()) < TINY.codebook for frame in frames)
    assert list(Speaker(voice, Reader(lambda text: text, split)).steps(iter([]))) == []


def test_growing_text_gives_the_same_sentences_as_the_whole_and_never_takes_a_word_back():
    text = "It **costs** 5 km. “Fine,” she said 😀.\n- one [link](http://x.y) more\n\nend"

    def pieces() -> Iterator[str]:
        yield from (text[i : i + 3] for i in range(0, len(text), 3))

    growing, whole = Reader(str.lower, split), Reader(str.lower, split)
    for piece in pieces():
        before = [one.phonemes for one in growing.sentences]
        growing.feed(piece)
        assert all(new.phonemes.startswith(old) for new, old in zip(growing.sentences, before, strict=False))
    growing.finish()
    whole.feed(text)
    whole.finish()
    assert [one.phonemes for one in growing.sentences] == [one.phonemes for one in whole.sentences] == [
        "it costs 5 km.", '"fine," she said .', "one link more", "end"]
    assert all(one.complete for one in growing.sentences)


def test_markdown_is_not_said():
    assert plain_text("## Title\n* `a` and __b__ ![x](y)").split() == ["Title", "a", "and", "b", "x"]


def test_a_line_of_wordnet():
    line = ('00217590 04 n 02 removal 2 take_away 0 003 @ 00217041 n 0000 | dismissal from office; '
            '"he died"; "it, too, ended"  ')
    found = read_line("noun", line)
    assert (found.words, found.definition) == (("removal", "take away"), "dismissal from office")
    assert found.examples == ("he died", "it, too, ended") and found.topic == 4


# --- the recipe ---------------------------------------------------------------------------------------------


def meanings() -> list[Synset]:
    """A small WordNet; every fourth meaning is held out."""
    return [Synset(part, 5, (f"{word}",), f"a kind of {word}", (), i % 4 == 0)
            for part, words in dict(noun="apple bridge castle dog engine forest", verb="walk jump sing read",
                                    adj="red blue green old", adv="slowly quickly well often").items()
            for i, word in enumerate(words.split())]


def test_questions_of_held_out_words_are_never_trained():
    trained, held = (draw_questions(meanings(), 30, held_out=held) for held in (False, True))
    assert len(set(trained)) == len(set(held)) == 30 and not set(trained) & set(held)
    assert trained == draw_questions(meanings(), 30)
    assert not any("apple" in text or "engine" in text for text in trained)


def test_an_answer_becomes_texts_without_markdown_and_without_a_cut_sentence():
    assert spoken_texts("**Yes.** It is a cat. And the\n\n- One dog!\nno end\ncaf\u00e9 is open.") == [
        "Yes. It is a cat.", "One dog!"]


def test_a_skipped_or_doubled_word_counts_unless_the_teachers_is_missed_too():
    texts = ["the cat sat on the mat", "one two three"]
    assert skipped_or_repeated(texts, texts, texts) == 0
    assert skipped_or_repeated(texts, ["the cat on the mat", texts[1]], texts) == round(100 / 9, 2)
    assert skipped_or_repeated(texts, ["the cat on the mat", texts[1]], ["the cat on the mat", texts[1]]) == 0
    assert skipped_or_repeated(texts, ["the cat cat sat on the mat", texts[1]], texts) == round(100 / 9, 2)


def test_hard_texts_are_of_ten_kinds_and_repeat_exactly():
    people = [Synset("noun", topic, (name,), "x y", (), True) for topic, name in
              ((PERSON, "Ada Lovelace"), (PERSON, "Newton"), (PLACE, "Crete"))]
    some = [Synset("noun", 5, (word,), f"a thing like {word}", (), True) for word in
            "apple bridge castle dog engine forest garden house island jungle kettle lamp".split()]
    texts = hard_texts(people + some, 20)
    assert texts == hard_texts(people + some, 20) and len(texts) == 20
    assert "$" in texts[1] and "**" in texts[5] and len(texts[9].split()) <= 60 and texts[6].count(" ") == 0


def test_the_stages_stand_on_earlier_ones(tmp_path):
    seen: set[str] = set()
    for stage in voice_recipe(tmp_path, tmp_path).stages:
        assert set(stage.needs) <= seen
        seen.add(stage.name)
    assert "voice" in seen


def test_without_hibari_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari.g2p", None)
    g2p.cache_clear()
    with pytest.raises(FileNotFoundError) as found:
        g2p()
    assert_one_sentence(found, "hibari-tts")
