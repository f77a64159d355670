"""The choice between renditions at a tiny size: who is better, how it is learnt, and that nothing else changes."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from omni_lite import by_ear, preference
from omni_lite.codec import build_codec
from omni_lite.config import CodecConfig
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, HeardWord, SoundsAlike, WrittenAlike
from omni_lite.model import OmniModel
from omni_lite.streams import IGNORE
from tests.test_likeness import small_whisper
from tests.test_train import DEVICES, TINY

PLAN = preference.PreferencePlan("tiny", texts=4, draws=4, steps=3, batch=2, gap=0.0)
TYPED = [preference.Typed((1, 2), (3, 4), "It is four."), preference.Typed((5, 6), (7,), "Yes."),
         preference.Typed((8,), (9, 10, 11), "A cat says meow.")]


def parts(device="cpu"):
    torch.manual_seed(0)
    codec = build_codec(CodecConfig(kind="lite", codebook=16, width=8)).to(device)
    return OmniModel(TINY).to(device), codec, small_whisper().to(device)


def recorded():
    return [(one.question, one.answer, torch.randint(16, (7, 3))) for one in TYPED]


def words(*nats):
    return [HeardWord(f"word {i}", n, 2.0 * i, 2.0 * i + 2) for i, n in enumerate(nats)]


def test_two_renditions_are_compared_at_the_words_that_differ():
    found = preference.choices_of([words(0.1, 2.0), words(0.2, 0.5), words(3.0, 0.4)], 0.5)
    assert [(one.first, one.second, [(k, round(more, 3)) for k, more in one.words]) for one in found] == [
        (0, 1, [(1, -1.5)]), (0, 2, [(0, 2.9), (1, -1.6)]), (1, 2, [(0, 2.8)])]
    assert preference.choices_of([words(0.5), words(0.6), words(0.9)], 0.5) == []


def test_a_word_is_compared_where_whisper_heard_it_with_some_frames_around():
    one = preference.Renditions(TYPED[0], [torch.zeros(7, 20), torch.zeros(7, 9)],
                                [[HeardWord("a", 0.1, 0.0, 3.5), HeardWord("b", 9.0, 7.6, 12.2)],
                                 [HeardWord("a", 0.9, 0.0, 4.0), HeardWord("b", 1.0, 8.9, 9.0)]])
    (choice,) = preference.choices_of(one.words, 0.5)
    first, second = preference.pieces_of(choice, one, 3, 5)
    assert first[:2] == ((3, slice(0, 5)), (5, slice(0, 6))) and first[2] == pytest.approx(0.8)
    assert second == ((5, slice(6, 9)), (3, slice(5, 14)), preference.MOST)     # the second is the better one here


def test_answers_to_questions_of_one_length_are_drawn_together():
    groups = preference.groups_of_one_length(TYPED * 2, 3)
    assert [len(group) for group in groups] == [2, 3, 1]
    assert sorted(one.text for group in groups for one in group) == sorted(one.text for one in TYPED * 2)
    assert all(len({len(one.question) for one in group}) == 1 for group in groups)


def test_the_log_probability_of_a_frame_is_that_of_its_seven_codes():
    torch.manual_seed(0)
    codes = [torch.randint(16, (7, n)) for n in (2, 4)]
    batch = by_ear.laid(TINY.vocab, [(1,), (2, 3)], [(4,), (5, 6)], codes).batch
    logits = torch.randn(*batch.audio_target.transpose(1, 2).shape, TINY.vocab.audio_size)
    found = preference.log_prob(logits, batch, 16, 5)
    assert found.shape == (2, 5) and not found[0, 2:].any() and not found[1, 4:].any()
    for b, (targets, known) in enumerate(zip(batch.audio_target, codes, strict=True)):
        for frame in range(known.shape[1]):
            wanted = 0.0
            for stream in range(7):
                step = (targets[stream] < 16).logical_and(targets[stream] != IGNORE).nonzero().flatten()[frame]
                wanted += F.log_softmax(logits[b, step, stream], -1)[known[stream, frame]].item()
            assert found[b, frame].item() == pytest.approx(wanted, rel=1e-5)


def test_the_loss_falls_as_better_words_gain_more_than_the_worse():
    before = torch.full((2, 3), -5.0)
    compared = [((0, slice(0, 2)), (1, slice(0, 1)), 1.0), ((1, slice(2, 3)), (0, slice(2, 3)), 3.0)]
    same, right = preference.preference_loss(before, before, compared, 0.1)
    assert same.item() == pytest.approx(math.log(2)) and right == 0
    now = before + torch.tensor([[1.0, 1.0, -1.0], [-1.0, 0.0, 2.0]])
    loss, right = preference.preference_loss(now, before, compared, 0.1)
    by_hand = (math.log1p(math.exp(-0.3)) + 3 * math.log1p(math.exp(-0.3))) / 4
    assert loss.item() == pytest.approx(by_hand) and right == 1
    loss, right = preference.preference_loss(now.flip(0), before, compared, 0.1)      # now the worse ones have gained
    assert loss > same and right == 0
    now.requires_grad_()
    preference.preference_loss(now, before, compared, 0.1)[0].backward()
    assert now.grad[1, 1] == 0 and now.grad[0, 0] < 0 < now.grad[1, 0]                # of the words alone


def test_what_is_heard_of_a_rendition_does_not_depend_on_the_others():
    _, codec, whisper = parts()
    alike, written = SoundsAlike(Ears(whisper.encoder), AFTER), WrittenAlike(whisper)
    codes, texts = [torch.randint(16, (7, 6)), torch.randint(16, (7, 6))], ["It is four.", "Yes."]
    both = preference.heard_words(codec, alike, written, codes, texts)
    assert [[word.text for word in one] for one in both] == [["It", "is", "four", ""], ["Yes", ""]]
    for one, text, found in zip(codes, texts, both, strict=True):
        (alone,) = written.words(alike.seen(codec.decode(one[None]))[-1], [text], [6])
        for a, b in zip(alone, found, strict=True):
            assert a.nats == pytest.approx(b.nats, rel=3e-2, abs=3e-2)     # bfloat16 where the machine has it


def test_renditions_are_kept_and_said_again_the_same(tmp_path):
    model, codec, whisper = parts()
    shown = []
    first = preference.say_often(model, codec, whisper, TYPED, PLAN, tmp_path, shown.append)
    assert "said 2/2 groups" in shown[-1] and len(first) == 3
    assert all(len(one.codes) == len(one.words) == 4 for one in first)
    again = preference.say_often(model, codec, whisper, TYPED, PLAN, tmp_path, shown.append)
    assert len(shown) == 1                                                  # read from the file
    (tmp_path / "tiny_draws.pt").unlink()
    anew = preference.say_often(model, codec, whisper, TYPED, PLAN, tmp_path, shown.append)
    for a, b, c in zip(first, again, anew, strict=True):
        assert a.words == b.words and [len(row) for row in a.words] == [len(row) for row in c.words]
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(a.codes, b.codes, c.codes, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_the_voice_learns_its_choice_and_nothing_else_does(device, tmp_path):
    model, codec, whisper = parts(device)
    before = {name: p.clone() for part in (model, codec, whisper) for name, p in part.named_parameters()}
    shown = []
    preference.prefer(model, codec, whisper, TYPED, recorded(), tmp_path, PLAN, shown.append)
    assert "3 of 3 texts" in shown[1] and "step 3/3" in shown[-1] and "preferred" in shown[-1] and "codes" in shown[-1]
    after = {name: p for part in (model, codec, whisper) for name, p in part.named_parameters()}
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"tts_adapter"}
    assert all(p.requires_grad for p in model.parameters())


def test_the_better_rendition_becomes_likelier(tmp_path, monkeypatch):
    """Of two renditions that are said to be clear and unclear, the voice comes to say the clear one."""
    model, codec, whisper = parts()
    codes = [torch.randint(16, (7, 3)) for _ in range(2)]
    monkeypatch.setattr(preference, "say_often", lambda *_: [
        preference.Renditions(one, [row.to(torch.int16) for row in codes], [words(0.2), words(2.9)]) for one in TYPED])
    batch = by_ear.laid(TINY.vocab, [TYPED[0].question] * 2, [TYPED[0].answer] * 2, codes).batch

    def margin():
        found = preference.log_prob(by_ear.voice_logits(model, batch), batch, 16, 3)
        return (found[0] - found[1]).sum().item()

    before = margin()
    plan = replace(PLAN, steps=40, peak=2e-3, codes=0.0, chosen=0.0)
    preference.prefer(model, codec, whisper, TYPED, [], tmp_path, plan, lambda _: None)
    assert margin() > before + 5


def test_renditions_that_are_all_alike_leave_nothing_to_choose(tmp_path):
    model, codec, whisper = parts()
    before, shown = {name: p.clone() for name, p in model.named_parameters()}, []
    preference.prefer(model, codec, whisper, TYPED, recorded(), tmp_path, replace(PLAN, gap=1e3), shown.append)
    assert "no word differs by 1000.0 nats" in shown[-1]
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in model.named_parameters())


def test_a_third_of_what_is_said_are_sentences_to_repeat():
    rows = dict(repeat=[preference.Typed((1,), (2,), "again")], colours=[preference.Typed((3,), (4,), "red")])
    some = preference.some_typed(rows, replace(PLAN, texts=300))
    assert len(some) == 300 and some == preference.some_typed(rows, replace(PLAN, texts=300))
    assert 150 < sum(one.text == "again" for one in some) < 250
