"""The last stage at a tiny size: drawn codes stand in their places, what is heard reaches the voice, the rest stays."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from omni_lite import by_ear
from omni_lite.codec import build_codec, levels_from_frames
from omni_lite.config import CodecConfig
from omni_lite.data import Item, gather, lay_out
from omni_lite.generate import Sampling, SlowDecoder, generate
from omni_lite.model import OmniModel
from omni_lite.streams import Task, undelay_streams
from omni_lite.train import CodecPlan
from tests.test_likeness import small_whisper
from tests.test_train import DEVICES, TINY


def test_without_the_delay_the_steps_are_frames_again():
    """`in_frames` undoes the layout, for answers of other lengths in one batch."""
    torch.manual_seed(0)
    items = [Item(Task.T1A2, (1, 2), (3,) * n, codes=torch.randint(16, (7, n))) for n in (2, 5, 4)]
    batch = gather(items, [lay_out(item, TINY.vocab, 0) for item in items], TINY.vocab, None).batch
    frames = by_ear.in_frames(batch.audio_target.transpose(1, 2), batch.audio_target, TINY.vocab.codebook, 6)
    assert frames.shape == (3, 6, 7)
    for item, row in zip(items, frames, strict=True):
        n = item.codes.shape[1]
        assert torch.equal(row[:n].T, item.codes) and not row[n:].any()
    steps = batch.audio_target.transpose(1, 2)[..., None].expand(-1, -1, -1, 4)
    assert torch.equal(by_ear.in_frames(steps, batch.audio_target, 16, 6), frames[..., None].expand(-1, -1, -1, 4))


def test_drawn_codes_are_heard_and_the_gradient_is_of_all_that_were_likely():
    torch.manual_seed(0)
    codec = build_codec(CodecConfig(kind="lite", codebook=16, width=8)).requires_grad_(False)
    logits, codes = torch.randn(2, 3, 7, 16, requires_grad=True), torch.randint(16, (2, 7, 3))
    latents = by_ear.drawn_latents(codec, logits, codes)
    torch.testing.assert_close(latents, codec.quantizer.from_codes(levels_from_frames(codes)).transpose(1, 2))
    direction = torch.randn_like(latents)
    (latents * direction).sum().backward()
    # By hand, stream by stream: the vectors of all entries, in the proportion of their probabilities.
    known = logits.detach().clone().requires_grad_()
    total = 0
    for stream, (level, place) in enumerate(by_ear.FRAME_ORDER):
        quantizer = codec.quantizer.quantizers[level]
        entries = quantizer.out_proj(quantizer.codebook.weight.T[None])[0].T               # (16, D)
        mean = known[:, :, stream].softmax(-1) @ entries                                  # (2, 3, D)
        width = by_ear.LEVEL_STRIDES[level]                                                # columns of a code
        columns = direction.unflatten(1, (3, 4))[:, :, place * width : (place + 1) * width]
        total = total + (mean[:, :, None] * columns).sum()
    total.backward()
    torch.testing.assert_close(logits.grad, known.grad)


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
@pytest.mark.parametrize("plan", by_ear.DECODER_PLANS[:2], ids=lambda plan: plan.name)
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


@pytest.mark.parametrize("guidance", [1.0, 1.4])
def test_alone_the_voice_says_what_it_would_in_an_answer(guidance):
    """`own_answers` and `generate` agree code by code, for texts and limits of several lengths in one batch."""
    torch.manual_seed(0)
    model, question = OmniModel(TINY).eval(), (1, 2)
    nn.init.normal_(model.tts_adapter.head.weight, std=0.5)
    nn.init.normal_(model.tts_adapter.text.weight)
    texts, limits = [(3, 4), (), (5, 6, 7, 8, 9, 10, 11, 12, 13)], [4, 9, 1]

    class Told(SlowDecoder):
        """Writes the text that it is told."""

        def prefill(self, *args, **kwargs):
            return self.tell(super().prefill(*args, **kwargs))

        def step(self, *args, **kwargs):
            return self.tell(super().step(*args, **kwargs))

        def tell(self, logits):
            if logits.text is None:
                return logits
            wanted = self.told.pop(0) if self.told else TINY.vocab.eot
            return replace(logits, text=torch.eye(TINY.vocab.text_size)[wanted])

    one_by_one = []
    for text, limit in zip(texts, limits, strict=True):
        decoder = Told(model)
        decoder.told = list(text)
        steps = list(generate(model, None, task=Task.T1A2, text=question, limit=limit, batch_parallel=False,
                              decoder=decoder, sampling=Sampling(guidance=guidance)))
        said = torch.tensor(np.array([step.tokens for step in steps])).T
        one_by_one.append(undelay_streams(said)[:, :limit])
    together = by_ear.own_answers(model, [question] * len(texts), texts, limits, temperature=0.0,
                                  guidance=guidance)
    assert [codes.shape[1] for codes in together] == limits
    for a, b in zip(one_by_one, together, strict=True):
        assert torch.equal(a[:, : b.shape[1]], b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("plan", by_ear.DECODER_PLANS[2:], ids=lambda plan: plan.name)
def test_the_voice_learns_from_what_is_heard_and_nothing_else_does(plan, device, tmp_path):
    torch.manual_seed(0)
    codec = build_codec(CodecConfig(kind="lite", codebook=16, width=8)).to(device)
    model, whisper = OmniModel(TINY).to(device), small_whisper().to(device)
    wav = 0.1 * torch.randn(4, 6 * 2048)
    sentences = []
    for row, n in zip(wav, (2, 3, 5, 6), strict=True):
        codes = codec.encode(row[None, None, : 2048 * n].to(device))[0].cpu()
        sentences.append(by_ear.Spoken((row[: 2048 * n] * 32767).to(torch.int16), codes, codes, "It is four.", (3, 4)))
    before = {name: p.clone() for part in (model, codec) for name, p in part.named_parameters()}
    plan, shown = replace(plan, steps=3, batch=2), []
    by_ear.train_voice(model, codec, sentences, [(1, 2), (5,)], tmp_path, plan, whisper, shown.append)
    assert "step 3/3" in shown[-1] and "written" in shown[-1] and "codes" in shown[-1]
    assert ("mel" in shown[-1]) != plan.alone
    after = {name: p for part in (model, codec) for name, p in part.named_parameters()}
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"tts_adapter", *plan.trains}
    assert all(p.grad is None for p in whisper.parameters())


def test_the_voice_learns_which_codes_cost_a_word():
    """From what is heard alone, the code that sounds as the recording becomes likelier than those that do not."""
    torch.manual_seed(0)
    codec = build_codec(CodecConfig(kind="lite", codebook=16, width=8)).requires_grad_(False)
    right = torch.randint(16, (1, 7, 4))
    wanted = codec.quantizer.from_codes(levels_from_frames(right)).transpose(1, 2)
    logits = nn.Parameter(torch.zeros(1, 4, 7, 16))
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        codes = torch.distributions.Categorical(logits=logits.detach()).sample().transpose(1, 2)
        loss = (by_ear.drawn_latents(codec, logits, codes) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = codec.quantizer.from_codes(levels_from_frames(logits.argmax(-1).transpose(1, 2))).transpose(1, 2)
    any_codes = codec.quantizer.from_codes(levels_from_frames(torch.randint(16, (200, 7, 4)))).transpose(1, 2)
    assert (found - wanted).square().mean() < 0.1 * (any_codes - wanted).square().mean()
