"""The last stage at a tiny size: drawn codes stand in their places, nothing but the decoder learns."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from omni_lite import by_ear
from omni_lite.codec import build_codec
from omni_lite.config import CodecConfig
from omni_lite.model import OmniModel
from omni_lite.train import CodecPlan
from tests.test_likeness import small_whisper
from tests.test_train import DEVICES, TINY


def test_drawn_codes_stand_where_the_codes_do(monkeypatch):
    """A voice that knows what comes draws the very codes, whatever its neighbours in the batch."""
    model = OmniModel(TINY).eval()
    sentences = [(text, torch.randint(16, (7, frames))) for text, frames in (((1, 2, 3), 5), ((4,), 2), ((), 9))]
    seen = {}
    gather = by_ear.gather

    def watched(*args):
        seen["heard"] = gather(*args)
        return seen["heard"]

    def all_knowing(spoken):
        targets = seen["heard"].batch.audio_target.transpose(1, 2)          # (B, S, 7)
        return 1e3 * nn.functional.one_hot(targets.clamp(min=0), TINY.vocab.audio_size).float()

    monkeypatch.setattr(by_ear, "gather", watched)
    monkeypatch.setattr(model, "audio_head", all_knowing)
    for (_, codes), drawn in zip(sentences, by_ear.draw_codes(model, sentences), strict=True):
        assert torch.equal(drawn, codes)


def test_crops_hold_sound_and_codes_of_the_same_frames():
    torch.manual_seed(0)
    frames = [torch.arange(n) for n in (3, 9)]
    sentences = [by_ear.Spoken((100 + t).repeat_interleave(2048)[: 2048 * len(t) - 700].to(torch.int16),
                               t.expand(7, -1), t.expand(7, -1) + 20) for t in frames]
    plan = CodecPlan(batch=40, seconds=4 / 11.71875, starts=0.2, drawn=0.5)
    wav, codes, heard, texts = next(by_ear.coded_crops(sentences, plan))
    assert texts == []                                                      # of a part nobody knows which words it says
    assert wav.shape == heard.shape == (40, 1, 4 * 2048) and codes.shape == (40, 7, 4)
    of_frames = (wav * 32768).view(40, 4, 2048)
    listened = heard.view(40, 4, 2048).bool()
    said = codes[:, 0, :, None].expand(-1, -1, 2048)
    known = listened & (of_frames > 0)
    assert torch.equal((of_frames[known] - 100).round().long(), said[known] % 20)
    assert not wav[heard == 0].any()
    drawn = (codes[:, 0] >= 20).any(1)
    assert 0.2 < drawn.float().mean() < 0.8
    assert torch.equal((codes[:, 0] >= 20)[listened.any(-1)], drawn[:, None].expand(-1, 4)[listened.any(-1)])
    later = codes[:, 0, 0] % 20 > 0                                         # cut off from their past: not judged there
    assert later.any() and not listened[later, 0].any() and listened[~later, 0].all()


def test_whole_sentences_of_like_length_come_together_with_their_texts(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(by_ear, "NEIGHBOURS", 2)
    frames = [torch.arange(n) for n in (9, 3, 40, 4, 8)]
    sentences = [by_ear.Spoken((100 + t).repeat_interleave(2048)[: 2048 * len(t) - 700].to(torch.int16),
                               t.expand(7, -1), t.expand(7, -1) + 20, f"{len(t)} frames") for t in frames]
    plan = CodecPlan(batch=2, seconds=1.0, drawn=0.5)
    drawn, seen = 0, set()
    for some in islice(by_ear.groups(sentences, plan), 30):
        wav, codes, heard, texts = by_ear.whole(some, plan)
        lengths = [int(text.split()[0]) for text in texts]
        assert sorted(lengths) in ([3, 4], [4, 8], [8, 9])                          # forty frames are too long
        longest = -(-max(lengths) // 3) * 3
        assert wav.shape == heard.shape == (2, 1, 2048 * longest) and codes.shape == (2, 7, longest)
        for row, n in enumerate(lengths):
            assert heard[row].sum() == 2048 * n and not wav[row, 0, 2048 * n - 700 :].any()
            assert torch.equal((wav[row, 0, : 2048 * n : 2048] * 32768 - 100).round().long(), codes[row, 0, :n] % 20)
            drawn += int(codes[row, 0, 0] >= 20)
        seen.update(texts)
    assert len(seen) == 4 and 15 < drawn < 45
    with pytest.raises(ValueError, match="No sentence is as short as 0.1 s"):
        next(by_ear.groups(sentences, replace(plan, seconds=0.1)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("plan", by_ear.DECODER_PLANS, ids=lambda plan: plan.name)
def test_the_decoder_alone_learns_from_drawn_codes(plan, device, tmp_path):
    torch.manual_seed(0)
    codec = build_codec(CodecConfig(kind="lite", codebook=32, width=16)).to(device)
    wav = 0.1 * torch.randn(1, 1, 5 * 2048, device=device)
    codes = codec.encode(wav)
    before, sound = {name: p.clone() for name, p in codec.named_parameters()}, codec.decode(codes)
    sentences = [by_ear.Spoken((wav[0, 0] * 32767).to(torch.int16).cpu(), codes[0].cpu(),
                              torch.randint(32, codes[0].shape), "It is four.")]
    plan = replace(plan, steps=3, batch=2, seconds=plan.seconds if plan.written else 4 / 11.71875)
    shown, whisper = [], small_whisper().to(device)
    by_ear.train_decoder(codec, sentences, tmp_path, plan, whisper, shown.append)
    assert "step 3/3" in shown[-1] and "alike" in shown[-1] and ("written" in shown[-1]) == bool(plan.written)
    assert all(p.grad is None for p in whisper.parameters())
    changed = {name for name, p in codec.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert torch.equal(codec.encode(wav), codes) and not torch.equal(codec.decode(codes), sound)
