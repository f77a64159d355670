"""The choice between renditions at a tiny size: who is better, how it is learnt, and that nothing else changes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from omni_lite import by_ear, preference
from omni_lite.codec import build_codec
from omni_lite.config import CodecConfig
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, SoundsAlike, WrittenAlike
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


def test_each_of_the_clearest_is_compared_with_all_that_are_clearly_worse():
    assert preference.pairs_of([0.5, 0.2, 0.9, 0.25, 0.3, 0.8], 0.1) == [
        (1, 0), (1, 5), (1, 2), (3, 0), (3, 5), (3, 2)]
    assert preference.pairs_of([0.5, 0.52, 0.55], 0.1) == []
    assert preference.pairs_of([0.5, 0.3], 0.1) == [(1, 0)]


def test_answers_to_questions_of_one_length_are_drawn_together():
    groups = preference.groups_of_one_length(TYPED * 2, 3)
    assert [len(group) for group in groups] == [2, 3, 1]
    assert sorted(one.text for group in groups for one in group) == sorted(one.text for one in TYPED * 2)
    assert all(len({len(one.question) for one in group}) == 1 for group in groups)


def test_the_log_probability_is_that_of_every_code_by_itself():
    torch.manual_seed(0)
    codes = [torch.randint(16, (7, n)) for n in (2, 4)]
    batch = by_ear.laid(TINY.vocab, [(1,), (2, 3)], [(4,), (5, 6)], codes).batch
    logits = torch.randn(*batch.audio_target.transpose(1, 2).shape, TINY.vocab.audio_size)
    found, counts = preference.log_prob(logits, batch)
    for b, targets in enumerate(batch.audio_target):
        wanted, n = 0.0, 0
        for stream in range(7):
            for step in range(targets.shape[1]):
                if targets[stream, step] != IGNORE:
                    wanted += F.log_softmax(logits[b, step, stream], -1)[targets[stream, step]].item()
                    n += 1
        assert found[b].item() == pytest.approx(wanted, rel=1e-5) and counts[b] == n


def test_the_loss_falls_as_the_better_one_gains_more_than_the_worse():
    before = torch.tensor([-10.0, -12.0, -9.0, -11.0])
    same = preference.preference_loss(before, before, 0.1)
    assert same.item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    better = before + torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert preference.preference_loss(better, before, 0.1) < same
    both = before + 5.0                       # both likelier: nothing is preferred
    assert preference.preference_loss(both, before, 0.1).item() == pytest.approx(same.item())
    by_hand = -torch.log(torch.sigmoid(torch.tensor(0.1 * 2.0)))
    assert preference.preference_loss(better, before, 0.1).item() == pytest.approx(by_hand.item())


def test_unclearness_is_whispers_own_for_each_rendition_alone():
    _, codec, whisper = parts()
    alike, written = SoundsAlike(Ears(whisper.encoder), AFTER), WrittenAlike(whisper)
    codes, texts = [torch.randint(16, (7, 6)), torch.randint(16, (7, 6))], ["It is four.", "Yes."]
    both = preference.unclearness(codec, alike, written, codes, texts)
    for one, text, nats in zip(codes, texts, both, strict=True):
        features = alike.seen(codec.decode(one[None]))[-1]
        tokens = [*written.tokenizer.sot_sequence_including_notimestamps, *written.tokenizer.encode(" " + text),
                  written.tokenizer.eot]
        with torch.no_grad():
            likely = whisper.decoder(torch.tensor([tokens]), features)[0].log_softmax(-1)
        start = len(written.tokenizer.sot_sequence_including_notimestamps)
        by_hand = -sum(likely[i - 1, tokens[i]].item() for i in range(start, len(tokens))) / (len(tokens) - start)
        assert nats.item() == pytest.approx(by_hand, rel=2e-2)              # bfloat16 where the machine has it


def test_renditions_are_kept_and_said_again_the_same(tmp_path):
    model, codec, whisper = parts()
    shown = []
    first = preference.say_often(model, codec, whisper, TYPED, PLAN, tmp_path, shown.append)
    assert "said 2/2 groups" in shown[-1] and len(first) == 3
    assert all(len(one.codes) == len(one.nats) == 4 for one in first)
    again = preference.say_often(model, codec, whisper, TYPED, PLAN, tmp_path, shown.append)
    assert len(shown) == 1                                                  # read from the file
    (tmp_path / "tiny_draws.pt").unlink()
    anew = preference.say_often(model, codec, whisper, TYPED, PLAN, tmp_path, shown.append)
    for a, b, c in zip(first, again, anew, strict=True):
        assert a.nats == b.nats == pytest.approx(c.nats)
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
        preference.Renditions(one, [row.to(torch.int16) for row in codes], [0.2, 0.9]) for one in TYPED])
    batch = by_ear.laid(TINY.vocab, [TYPED[0].question] * 2, [TYPED[0].answer] * 2, codes).batch

    def margin():
        found, _ = preference.log_prob(by_ear.voice_logits(model, batch), batch)
        return (found[0] - found[1]).item()

    before = margin()
    plan = replace(PLAN, steps=40, peak=2e-3, codes=0.0, chosen=0.0)
    preference.prefer(model, codec, whisper, TYPED, [], tmp_path, plan, lambda _: None)
    assert margin() > before + 5


def test_renditions_that_are_all_alike_leave_nothing_to_choose(tmp_path):
    model, codec, whisper = parts()
    before, shown = {name: p.clone() for name, p in model.named_parameters()}, []
    preference.prefer(model, codec, whisper, TYPED, recorded(), tmp_path, replace(PLAN, gap=1e3), shown.append)
    assert "no two renditions of a text differ by 1000.0 nats" in shown[-1]
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in model.named_parameters())


def test_a_third_of_what_is_said_are_sentences_to_repeat():
    rows = dict(repeat=[preference.Typed((1,), (2,), "again")], colours=[preference.Typed((3,), (4,), "red")])
    some = preference.some_typed(rows, replace(PLAN, texts=300))
    assert len(some) == 300 and some == preference.some_typed(rows, replace(PLAN, texts=300))
    assert 150 < sum(one.text == "again" for one in some) < 250
