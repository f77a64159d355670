"""LiteSNAC's training: its crops, its plans, and what an interrupted one leaves behind."""

import pytest
import torch
from torch import nn
from whisper.model import AudioEncoder

from omni_lite import loop
from omni_lite.config import CodecConfig
from omni_lite.hear import Ears
from omni_lite.litesnac import LiteSNAC
from omni_lite.recipes.lite import codec as module
from omni_lite.recipes.lite.codec import CodecPlan, crops, only_training, train_codec
from omni_lite.recipes.lite.likeness import WhisperLikeness

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
WAVES = [(torch.sin(torch.arange(n) / 20) * 20_000).to(torch.int16) for n in (24_000, 9000)]


@pytest.fixture
def codec() -> LiteSNAC:
    torch.manual_seed(0)
    return LiteSNAC(CodecConfig("lite", 32, 16)).eval()


def quiet(_: str) -> None:
    """Say nothing."""


def test_codec_crops_and_one_short_training(codec, tmp_path):
    batch = next(crops(WAVES, 0.5, 6))
    assert batch.shape == (6, 1, 12_000) and batch.abs().max() <= 1
    shown = []
    train_codec(codec, WAVES, tmp_path, CodecPlan(steps=6, batch=2, seconds=0.5), say=shown.append)
    assert "step 6/6" in shown[-1] and not codec.training


def test_crops_may_begin_where_a_sentence_does():
    torch.manual_seed(0)
    wave = torch.full((24_000,), 10_000, dtype=torch.int16)
    always = next(crops([wave], 0.1, 20, starts=1.0))
    assert (always[:, 0, 0] != 0).all()                  # no silence before the sentence
    assert (next(crops([wave], 0.5, 40))[:, 0, 0] == 0).any()


@pytest.mark.parametrize("device", DEVICES)
def test_whispers_features_are_learnt_from_the_coarse_levels(device, codec, tmp_path):
    codec, ears = codec.to(device), Ears(AudioEncoder(80, 1500, 24, 2, 1)).to(device)
    before = {name: p.clone() for name, p in ears.named_parameters()}
    likeness = WhisperLikeness(16, ears).to(device)
    wav = next(crops(WAVES, 0.5, 3)).to(device)
    columns = likeness.columns(wav, 24)
    assert columns.shape == (3, 24, 24)
    likeness(wav, codec(wav)[1]).backward()
    assert all(p.grad is not None for p in codec.encoder.parameters())
    assert all(p.grad is None for p in codec.quantizer.quantizers[2].parameters())           # of the coarse ones alone
    shown = []
    plan = CodecPlan("codec_words", 2, 2, 0.5, dropout=(0.5, 0.5, 0.0), wrong=(0.1, 0.1, 0.1), features=1.0, heard=0.5)
    train_codec(codec, WAVES, tmp_path, plan, say=shown.append, ears=ears)
    assert "step 2/2" in shown[-1] and "features" in shown[-1] and "heard" in shown[-1]
    assert all(torch.equal(p, before[name]) for name, p in ears.named_parameters())


def test_a_plan_for_the_decoder_leaves_the_codes_alone(codec, tmp_path):
    wav = WAVES[0].float()[None, None] / 32768
    before, sound = codec.encode(wav), codec.decode(codec.encode(wav))
    plan = CodecPlan("codec_decoder", 3, batch=2, seconds=0.5, reseed_until=0.0, trains=("decoder",))
    train_codec(codec, WAVES, tmp_path, plan, say=quiet)
    assert torch.equal(codec.encode(wav), before) and not torch.equal(codec.decode(before), sound)
    assert all(p.requires_grad for p in codec.parameters())


def test_a_killed_plan_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    """The crops go on where they were, and so do quantizer dropout and wrong codes."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    plan = CodecPlan(steps=4, batch=2, seconds=0.25, dropout=(0.3, 0.3, 0.4), wrong=(0.1, 0.1, 0.1), reseed_every=2)
    own, ends = module.codec_loss, []

    def run(folder, stop_at=None):
        count = 0

        def losses(*args):
            nonlocal count
            count += 1
            if count == stop_at:
                raise KeyboardInterrupt
            return own(*args)

        monkeypatch.setattr(module, "codec_loss", losses)
        torch.manual_seed(0)
        codec = LiteSNAC(CodecConfig("lite", 32, 16)).eval()
        train_codec(codec, WAVES, folder, plan, say=quiet)
        ends.append(codec.state_dict())

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop_at=3)
    run(tmp_path / "broken")
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_plan_leaves_nothing_frozen_and_nothing_in_training(codec, error):
    with pytest.raises(error), only_training(codec, "codec_decoder", ("decoder",)):
        assert codec.training and not any(p.requires_grad for p in codec.encoder.parameters())
        raise error
    assert not codec.training and all(p.requires_grad for p in codec.parameters())


def test_a_frozen_part_that_moved_is_noticed(codec):
    with pytest.raises(AssertionError, match="codec_decoder changed encoder"), torch.no_grad(), \
            only_training(codec, "codec_decoder", ("decoder",)):
        nn.init.ones_(next(codec.encoder.parameters()))
    assert not codec.training and all(p.requires_grad for p in codec.parameters())
