"""What the decoder learns from renditions at a tiny size: the loss by hand, and that nothing else changes."""

import random
from dataclasses import replace

import pytest
import torch
from whisper.tokenizer import get_tokenizer

from omni_lite import clarity
from omni_lite.by_ear import Spoken
from omni_lite.codec import build_codec
from omni_lite.config import CodecConfig
from omni_lite.hear import Ears
from omni_lite.likeness import AFTER, SoundsAlike, WrittenAlike
from omni_lite.vocab import FRAME_SAMPLES
from tests.test_likeness import small_whisper
from tests.test_train import DEVICES

PLAN = clarity.ClarityPlan("tiny", steps=2, recordings=2, renditions=2)
TEXTS = ["It is four.", "Yes.", "A cat says meow."]


def parts(device="cpu"):
    torch.manual_seed(0)
    return build_codec(CodecConfig(kind="lite", codebook=16, width=8)).to(device), small_whisper().to(device)


def recordings():
    """Sentences of 5, 6 and 7 frames, the last of which is not whole."""
    torch.manual_seed(1)
    waves = [(3000 * torch.randn(FRAME_SAMPLES * n - 100)).to(torch.int16) for n in (5, 6, 7)]
    codes = [torch.randint(16, (7, n)) for n in (5, 6, 7)]
    return [Spoken(wave, known, known, text) for wave, known, text in zip(waves, codes, TEXTS, strict=True)]


def renditions():
    torch.manual_seed(2)
    return [(text, torch.randint(16, (7, n)).to(torch.int16)) for text in TEXTS for n in (4, 6)]


def test_only_what_is_less_likely_than_in_the_recording_is_lost():
    nats = torch.tensor([[0.5, 2.0, 0.01], [1.0, 7.0, 7.0]])
    recorded = torch.tensor([[0.7, 0.5, 0.0], [0.2, 0.0, 0.0]])
    counted = torch.tensor([[True, True, True], [True, False, False]])
    assert clarity.lost(nats, recorded, counted).item() == pytest.approx((1.5 + 0.8) / 4)
    assert clarity.lost(recorded, recorded, counted) == 0


def test_a_recording_is_doubted_as_it_is_by_itself():
    _, whisper = parts()
    alike, written = SoundsAlike(Ears(whisper.encoder), AFTER), WrittenAlike(whisper)
    some = {one.text: one.wave for one in recordings()}
    found = clarity.recorded_nats(alike, written, some, torch.device("cpu"))
    assert set(found) == set(TEXTS)
    for text, wave in some.items():
        (alone,) = clarity.recorded_nats(alike, written, {text: wave}, torch.device("cpu")).values()
        assert len(alone) == len(written.tokenizer.encode(" " + text)) + 1
        torch.testing.assert_close(found[text], alone, rtol=0.05, atol=0.05)     # silence follows the shorter ones


def test_a_decoder_that_has_not_moved_loses_nothing_of_how_it_sounded():
    codec, whisper = parts()
    loss = clarity.ClarityLoss(codec, whisper, PLAN)
    some = [clarity.Said(codes, text, torch.full((20,), 100.0)[: 1 + len(loss.written.tokenizer.encode(" " + text))])
            for text, codes in renditions()[:2]]
    told = loss.of_renditions(some, torch.device("cpu"))
    assert told["near"] == 0 and told["lost"] == 0 and told["loss"] == 0       # no token is as unlikely as that
    with torch.no_grad():
        codec.decoder.head.bias.add_(0.5)
    assert loss.of_renditions(some, torch.device("cpu"))["near"] > 0.01
    told = loss.of_recordings(recordings()[:2], torch.device("cpu"))
    assert told["loss"] >= told["mel"] + PLAN.alike * told["alike"] + PLAN.written * told["written"] - 1e-4


@pytest.mark.parametrize("device", DEVICES)
def test_the_decoder_learns_and_nothing_else_does(device, tmp_path):
    codec, whisper = parts(device)
    before = {name: p.clone() for part in (codec, whisper) for name, p in part.named_parameters()}
    shown = []
    clarity.train_clarity(codec, recordings(), [*renditions(), ("never recorded", torch.zeros(7, 4))], tmp_path, PLAN,
                          whisper, shown.append)
    assert "3 recordings, 6 renditions" in shown[0] and "step 2/2" in shown[-1] and "lost" in shown[-1]
    after = {name: p for part in (codec, whisper) for name, p in part.named_parameters()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert all(p.requires_grad for p in codec.parameters())


def test_more_of_the_text_is_heard_afterwards(tmp_path, monkeypatch):
    """Where a recording leaves no doubt of any token, all that Whisper doubts is lost, and becomes less."""
    codec, whisper = parts()
    nothing = {text: torch.zeros(1 + len(get_tokenizer(False).encode(" " + text))) for text in TEXTS}
    monkeypatch.setattr(clarity, "recorded_nats", lambda *_: nothing)
    plan = replace(PLAN, steps=30, peak=3e-3, end=1e-3, renditions=6, recordings=1, near=0.0, lost=300.0)
    said = [clarity.Said(codes, text, nothing[text]) for text, codes in renditions()]

    def missed():
        return clarity.ClarityLoss(codec, whisper, plan).of_renditions(said, torch.device("cpu"))["lost"].item()

    before = missed()
    clarity.train_clarity(codec, recordings(), renditions(), tmp_path, plan, whisper, lambda _: None)
    assert missed() < before - 0.01


def test_texts_without_a_recording_leave_nothing_to_learn(tmp_path):
    codec, whisper = parts()
    with pytest.raises(ValueError, match="No sentence with a rendition is as short as 4.5 s: tiny needs some"):
        clarity.train_clarity(codec, recordings(), [("other", torch.zeros(7, 4))], tmp_path, PLAN, whisper)


def test_what_is_drawn_together_stands_together():
    some = clarity.near(list(range(100)), 5, 10, random.Random(0))
    assert len(set(some)) == 5 and max(some) - min(some) < 10
    assert sorted(clarity.near([1, 2, 3], 5, 10, random.Random(0))) == [1, 2, 3]
