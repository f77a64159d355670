"""The phases at a tiny size: frozen stays frozen, training learns, a killed run goes on."""

import os
import platform
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from whisper.model import AudioEncoder

from omni_lite import precision, train
from omni_lite.codec import build_codec
from omni_lite.config import LITE, CodecConfig, EarConfig
from omni_lite.data import FeatureStore, Item, batches, gather, lay_out, store_features, train_tokenizer
from omni_lite.hear import Ears
from omni_lite.likeness import WhisperLikeness
from omni_lite.model import OmniModel
from omni_lite.streams import IGNORE
from omni_lite.train import (
    LITE_PHASES,
    MINI_OMNI_PHASES,
    Corpus,
    Loop,
    Phase,
    cosine,
    masked,
    next_token_loss,
    omni_loss,
    round_of,
    start_from_codebooks,
    start_from_spelling,
    train_phase,
    with_noise,
    without_text,
)
from omni_lite.vocab import Vocab

TINY = replace(
    LITE,
    vocab=Vocab(text_base=40, codebook=16),
    ear=EarConfig(whisper="tiny.en", width=8, stack=2, adapter="mlp", hidden=16),
    trunk=LITE.trunk | dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2),
    tts_blocks=1,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


class Letters:
    """Stands for a tokenizer: token i has 1 + i % 3 letters."""

    def id_to_token(self, i: int) -> str:
        return "abc"[: 1 + i % 3]

    def get_vocab_size(self) -> int:
        return 40


@pytest.fixture
def corpus(tmp_path):
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(1, n, 8, generator=generator) for n in (6, 9, 12)]
    store_features(tmp_path / "f.f16", ((clip, torch.tensor([clip.shape[1]])) for clip in clips))
    texts = [((1, 2), (3, 4)), ((5, 6, 7), (8,)), ((9,), (10, 11, 12))]
    codes = [torch.randint(0, 16, (7, n), generator=generator) for n in (2, 3, 4)]
    spoken = [(q, a, c) for (q, a), c in zip(texts, codes, strict=True)]
    heard = [(clip, *three) for clip, three in enumerate(spoken)]
    said = [(clip, q) for clip, q, _, _ in heard]
    return Corpus(Letters(), texts, [q for q, _ in texts], said, heard, spoken, FeatureStore(tmp_path / "f.f16", 8))


def tiny(name: str, steps: int = 6) -> Phase:
    phase = next(phase for phase in LITE_PHASES if phase.name == name)
    return replace(phase, steps=steps, steps_per_batch=200)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its mallopt")
def test_memory_that_is_freed_is_not_asked_for_again():
    """In a process of its own, which the setting is for: a large tensor's pages are made at first, not each time.

    The second time they may be made too: what else was allocated meanwhile can stand in the way of the first place.
    """
    code = """
import resource, torch
from omni_lite.train import keep_freed_memory

def pages_made():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(*(pages_made() for _ in range(5)))
keep_freed_memory()
print(*(pages_made() for _ in range(5)))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    asked, kept = ([int(pages) for pages in line.split()] for line in run.stdout.splitlines())
    assert kept[-1] < min(asked) / 10


@pytest.mark.parametrize("pays", [False, True])
def test_muon_is_torchs(pays, monkeypatch):
    """To the rounding of bfloat16, in which torch's works everywhere and ours where that pays."""
    monkeypatch.setattr(precision, "bf16_pays", lambda device: pays)
    generator = torch.Generator().manual_seed(0)
    shapes = (12, 30), (30, 12), (16, 16), (12, 30)             # those of one shape are worked out together
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    begun = [p.detach().clone() for p in ours]
    own = precision.Muon(ours, lr=0.01, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            its.grad = mine.grad.clone()
        own.step()
        reference.step()
    for mine, its, start in zip(ours, theirs, begun, strict=True):
        assert (mine - its).norm() <= 0.02 * (its - start).norm()
    assert own.state_dict()["state"].keys() == reference.state_dict()["state"].keys()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [phase.name for phase in LITE_PHASES])
def test_each_phase_changes_what_it_trains_and_nothing_else(name, device, corpus, tmp_path):
    torch.manual_seed(0)
    model = OmniModel(TINY).to(device)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    phase = tiny(name)
    train_phase(model, phase, corpus, tmp_path / "run", say=lambda _: None)
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(phase.trains) - {"text_head"}          # tied in this preset: it has no weights


def test_a_phase_can_be_watched_and_leaves_no_file_without_a_folder(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model, seen = OmniModel(TINY), []
        train_phase(model, tiny("phase2"), corpus, say=lambda _: None, warmup=2, seed=seed,
                    each=lambda step, losses, seen=seen: seen.append((step, losses["loss"])))
        assert [step for step, _ in seen] == list(range(6))
        runs.append(seen)
    assert runs[0] == runs[1] != runs[2]
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_next_token_loss_is_cross_entropy(dtype, tolerance):
    torch.manual_seed(0)
    logits = torch.randn(50, 30).to(dtype)
    targets = torch.randint(0, 30, (50,))
    targets[::7] = IGNORE
    ours, theirs = logits.clone().requires_grad_(), logits.float().requires_grad_()
    loss, expected = next_token_loss(ours, targets), nn.functional.cross_entropy(theirs, targets, ignore_index=IGNORE)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.grad.float(), theirs.grad, rtol=tolerance, atol=tolerance * 0.1)


def test_a_phase_that_freezes_the_lm_leaves_the_text_path_bit_for_bit(corpus, tmp_path):
    model = OmniModel(TINY).eval()
    text, audio = torch.tensor([[42, 1, 2, 40, 43]]), torch.full((1, 7, 5), TINY.vocab.pad_a)
    before, _ = model(text, audio)
    train_phase(model, tiny("phase1a"), corpus, tmp_path, say=lambda _: None)
    train_phase(model, tiny("phase1b"), corpus, tmp_path, say=lambda _: None)
    assert torch.equal(model(text, audio)[0], before)


def test_a_frozen_part_that_moved_is_noticed(corpus, tmp_path):
    model = OmniModel(TINY)

    class Saboteur(Loop):
        def run(self, losses, after=None):
            with torch.no_grad():
                model.trunk.norm.weight += 1

    real, train.Loop = train.Loop, Saboteur
    try:
        with pytest.raises(AssertionError, match="phase1a changed trunk.norm.weight"):
            train_phase(model, tiny("phase1a"), corpus, tmp_path, say=lambda _: None)
    finally:
        train.Loop = real


def test_training_learns_three_answers(corpus, tmp_path):
    torch.manual_seed(0)
    model = OmniModel(TINY)
    shown = []
    # From nothing: no part is good already, and the past has no faults.
    phase = replace(tiny("phase3", 220), peak=5e-3, rates={}, noise=0.0)
    train_phase(model, phase, corpus, tmp_path, say=shown.append)
    text, audio = (float(shown[-1].split(f"{row} ")[1].split()[0]) for row in ("text", "audio"))
    assert text + audio < 0.7 * 6.5                      # ln 104 + ln 80 = 9.0 at the start


def test_the_loss_is_that_of_the_whole_logits(corpus):
    torch.manual_seed(0)
    random.seed(0)
    model = OmniModel(TINY).eval()
    stream = batches(corpus.draw({"A1A2": 1.0, "T1T2": 1.0}), TINY.vocab, 2, corpus.store, 200)
    heard = next(heard for heard in stream if heard.features is not None)
    text, audio = model(heard.batch.text_in, heard.batch.audio_in, heard.features, heard.lengths)
    wanted_text = nn.functional.cross_entropy(text.flatten(0, 1), heard.batch.text_target.flatten())
    wanted_audio = nn.functional.cross_entropy(audio.flatten(0, 2), heard.batch.audio_target.flatten())
    got = omni_loss(model, heard)
    torch.testing.assert_close(got["text"], wanted_text)
    torch.testing.assert_close(got["audio"], wanted_audio)
    assert (heard.batch.audio_target == IGNORE).any()


def test_a_state_of_other_optimizers_is_named(tmp_path):
    model = nn.Linear(4, 1)

    def loop(turned):
        return Loop("toy", model, list(model.parameters()), 2, 1e-2, 1e-4, tmp_path, turned=turned, say=lambda _: None)

    loop(()).run(lambda _: {"loss": model.weight.square().sum() + model.bias.sum()})
    with pytest.raises(ValueError, match="toy.pt was left by a training with other optimizers: delete it"):
        loop({model.weight}).run(lambda _: {"loss": model.weight.sum()})


@pytest.mark.parametrize("muon", [False, True])
def test_a_killed_run_ends_where_an_unbroken_one_does(tmp_path, monkeypatch, muon):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)

    def run(folder, stop_at=None):
        torch.manual_seed(3)
        model = nn.Linear(4, 1)

        def losses(step):
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

        loop = Loop("toy", model, list(model.parameters()), 20, 1e-2, 1e-4, folder,
                    turned={model.weight} if muon else (), say=lambda _: None)
        try:
            loop.run(losses)
        except KeyboardInterrupt:
            pass
        return model.weight.detach().clone()

    whole = run(tmp_path / "whole")
    run(tmp_path / "broken", stop_at=11)
    assert torch.equal(run(tmp_path / "broken"), whole)


def test_a_misheard_question_loses_doubles_and_mistakes_some_tokens():
    random.seed(1)
    question = tuple(range(100, 110))
    heard = [train.as_misheard(question, range(100)) for _ in range(2000)]
    kept = [sum(token in one for token in question) / 10 for one in heard]
    assert 0.90 < sum(kept) / len(kept) < 0.94                          # 7 of 100 are lost or taken for others
    doubled = sum(a == b for one in heard for a, b in zip(one, one[1:], strict=False)) / 20_000
    wrong = sum(token < 100 for one in heard for token in one) / 20_000
    assert 0.03 < doubled < 0.045 and 0.04 < wrong < 0.055
    assert train.as_misheard(question, range(100), share=1e-9) == question


def test_an_answer_that_repeats_its_question_is_never_misheard(corpus):
    corpus = replace(corpus, written=[((1, 2, 3, 4), (3, 4, 9))])
    stream = corpus.draw({"T1T2": 1.0}, misheard=1.0)
    assert all(next(stream).question == (1, 2, 3, 4) for _ in range(50))


def test_the_schedule_warms_up_and_falls_to_its_end():
    rates = [cosine(step, 100, 1e-3, 4e-6, 10) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(4e-6) and all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_the_schedule_begins_anew_where_it_is_told_to():
    assert [round_of(step, 10) for step in (0, 9)] == [(0, 10), (9, 10)]
    assert [round_of(step, 10, (4,)) for step in (3, 4, 9)] == [(3, 4), (0, 6), (5, 6)]
    assert [round_of(step, 10, (4, 7)) for step in (0, 5, 7)] == [(0, 4), (1, 3), (0, 3)]


def test_a_share_of_the_text_rows_is_hidden_whole():
    vocab, rows = Vocab(text_base=30, codebook=12), torch.arange(20).expand(400, 20)
    assert without_text(rows, vocab, 0.0) is rows
    torch.manual_seed(0)
    silent = without_text(rows, vocab, 0.25) == vocab.pad_t
    assert torch.equal(silent.any(1), silent.all(1)) and 60 < int(silent.all(1).sum()) < 140


@pytest.mark.parametrize("phases", [LITE_PHASES, MINI_OMNI_PHASES])
def test_the_phase_tables_name_real_parts_and_tasks(phases, corpus):
    parts = {name for name, _ in OmniModel(TINY).named_children()}
    for phase in phases:
        assert set(phase.trains) <= parts and phase.peak > phase.end > 0
        item = next(corpus.draw(phase.mixture))
        assert isinstance(item, Item)


def test_codec_crops_and_one_short_training(tmp_path):
    torch.manual_seed(0)
    waves = [(torch.sin(torch.arange(n) / 20) * 20_000).to(torch.int16) for n in (9000, 40_000)]
    batch = next(train.crops(waves, 0.5, 6))
    assert batch.shape == (6, 1, 12_000) and batch.abs().max() <= 1
    codec = build_codec(CodecConfig(kind="lite", codebook=32, width=16))
    shown = []
    train.train_codec(codec, waves, tmp_path, train.CodecPlan(steps=12, batch=2, seconds=0.5), say=shown.append)
    assert "step 12/12" in shown[-1] and not codec.training


def test_streams_count_as_much_as_they_are_given(corpus):
    torch.manual_seed(0)
    random.seed(0)
    model = OmniModel(TINY).eval()
    heard = next(batches(corpus.draw({"T1A2": 1.0}), TINY.vocab, 2, corpus.store, 200))
    logits = model(heard.batch.text_in, heard.batch.audio_in)[1]                             # (B, 7, S, V)
    targets = heard.batch.audio_target
    counts = (targets != IGNORE) * torch.tensor(train.LEVELS_ALIKE)[:, None]
    losses = nn.functional.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none")
    got = omni_loss(model, heard, streams=train.LEVELS_ALIKE)
    torch.testing.assert_close(got["audio"], (losses * counts.flatten()).sum() / counts.sum())
    assert train.LEVELS_ALIKE == (4, 2, 1, 1, 2, 1, 1)
    assert not torch.isclose(got["audio"], omni_loss(model, heard)["audio"])


@pytest.mark.parametrize("device", DEVICES)
def test_whispers_features_are_learnt_from_the_coarse_levels(device, tmp_path):
    torch.manual_seed(0)
    waves = [(torch.sin(torch.arange(24_000) / 20) * 20_000).to(torch.int16)]
    codec = build_codec(CodecConfig(kind="lite", codebook=32, width=16)).to(device)
    ears = Ears(AudioEncoder(80, 1500, 24, 2, 1)).to(device)
    before = {name: p.clone() for name, p in ears.named_parameters()}
    likeness = WhisperLikeness(16, ears).to(device)
    wav = next(train.crops(waves, 0.5, 3)).to(device)
    columns = likeness.columns(wav, 24)
    assert columns.shape == (3, 24, 24)
    likeness(wav, codec(wav)[1]).backward()
    assert all(p.grad is not None for p in codec.encoder.parameters())
    assert all(p.grad is None for p in codec.quantizer.quantizers[2].parameters())           # of the coarse ones alone
    shown = []
    plan = train.CodecPlan("codec_words", 4, 2, 0.5, kept=(0.5, 0.5, 0.0), wrong=(0.1, 0.1, 0.1), hearing=1.0)
    train.train_codec(codec, waves, tmp_path, plan, say=shown.append, ears=ears)
    assert "step 4/4" in shown[-1] and "hearing" in shown[-1]
    assert all(torch.equal(p, before[name]) for name, p in ears.named_parameters())


def test_scrambled_texts_hold_known_tokens_and_are_seldom_the_text_itself():
    random.seed(0)
    text, other = tuple(range(8)), tuple(range(20, 25))
    some = [train.scramble(text, other, [1, 5, 30]) for _ in range(200)]
    assert all(one and set(one) <= {*text, *other, 30} for one in some)
    assert sum(one == text for one in some) < 5 and len(set(some)) > 100


def test_blocks_are_compiled_for_long_phases_only_and_are_themselves_again_afterwards(monkeypatch):
    model = OmniModel(TINY)
    monkeypatch.setattr(train.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: lambda *args, **kwargs: function(*args, **kwargs))
    blocks = [*model.trunk.layers, *model.tts_adapter.blocks]
    with train.compiled(model, train.COMPILE_STEPS):
        assert all("forward" in vars(block) for block in blocks)
        model(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 7, 3, dtype=torch.long))
    assert not any("forward" in vars(block) for block in blocks)
    with train.compiled(model, train.COMPILE_STEPS - 1):
        assert not any("forward" in vars(block) for block in blocks)
    monkeypatch.setattr(train.shutil, "which", lambda name: None)
    with train.compiled(model, train.COMPILE_STEPS):
        assert not any("forward" in vars(block) for block in blocks)


def test_noise_changes_what_is_read_and_never_what_is_learnt(corpus):
    vocab = TINY.vocab
    heard = next(batches(corpus.draw({"T1A2": 1.0}), vocab, 2, corpus.store, 300))
    torch.manual_seed(0)
    noisy = with_noise(heard, vocab, 0.5)
    codes = heard.batch.audio_in < vocab.codebook
    changed = noisy.batch.audio_in != heard.batch.audio_in
    assert 0.3 < changed[codes].float().mean() < 0.6 and not changed[~codes].any()
    assert (noisy.batch.audio_in[codes] < vocab.codebook).all()
    assert torch.equal(noisy.batch.audio_target, heard.batch.audio_target)
    assert torch.equal(noisy.batch.text_in, heard.batch.text_in)
    assert with_noise(heard, vocab, 0.0) is heard


def test_masks_blur_whole_clips_and_no_padding():
    torch.manual_seed(0)
    lengths = torch.tensor([9, 20, 14, 3, 20, 17])
    inside = torch.arange(20) < lengths[:, None]
    features = torch.randn(6, 20, 4) * inside[..., None]
    changed = masked(features, lengths, 1.0) != features
    assert changed[inside].float().mean() > 0.9 and not changed[~inside].any()
    some = (masked(features, lengths, 0.5) != features).flatten(1).any(1)
    assert 0 < some.sum() < len(some)
    assert masked(features, lengths, 0.0) is features


def test_codes_that_sound_alike_begin_alike():
    torch.manual_seed(0)
    model, codec = OmniModel(TINY), build_codec(CodecConfig("lite", 16, 16))
    entries = codec.quantizer.quantizers[0].codebook.weight
    entries.data[3] = entries.data[5] * 2                # the codec looks at directions alone
    marks = model.audio_embed.weight[16:80].clone()
    start_from_codebooks(model, codec, kept=0.0)
    for weight in (model.audio_embed.weight, model.tts_adapter.head.weight):
        codes = weight[:16]                              # of stream 0
        torch.testing.assert_close(codes[3], codes[5])
        torch.testing.assert_close(codes @ codes.T, torch.nn.functional.cosine_similarity(
            entries[:, None], entries[None], dim=-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(model.audio_embed.weight[16:80], marks)


def test_words_that_are_spelled_alike_begin_alike():
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["station stations green"] * 9, 300)
    model = OmniModel(replace(TINY, vocab=replace(TINY.vocab, text_base=300), tts_reads_text=True))
    start_from_spelling(model, tokenizer, scale=0.5)
    weight = model.tts_adapter.text.weight
    ids = {word: tokenizer.token_to_id(f"\u0120{word}") for word in ("station", "stations", "green")}
    station, stations, green = (weight[ids[word]] for word in ids)
    assert torch.cosine_similarity(station, stations, 0) > torch.cosine_similarity(station, green, 0) + 0.4
    torch.testing.assert_close(station.norm(), torch.tensor(0.5 * 32**0.5))
    assert not weight[300:].any()                        # marks are not spelled


def test_a_strange_question_leaves_the_answer_with_its_codes(corpus):
    random.seed(0)
    codes_of = {answer: codes for _, answer, codes in corpus.spoken}
    own = {answer: question for question, answer, _ in corpus.spoken}
    for task in ("T1A2", "A1A2"):
        for share, least in ((0.0, 0), (1.0, 10)):
            stream = corpus.draw({task: 1.0}, strange=share)
            items = [next(stream) for _ in range(60)]
            assert all(torch.equal(item.codes, codes_of[item.answer]) for item in items)
            assert all(corpus.heard[item.clip][1] == item.question for item in items if task == "A1A2")
            others = sum(item.question != own[item.answer] for item in items)
            assert others >= least and (share > 0 or others == 0)


def test_a_plan_for_the_decoder_leaves_the_codes_alone(tmp_path):
    torch.manual_seed(0)
    waves = [(torch.sin(torch.arange(24_000) / 20) * 20_000).to(torch.int16)]
    codec = build_codec(CodecConfig(kind="lite", codebook=32, width=16))
    wav = waves[0].float()[None, None] / 32768
    before, sound = codec.encode(wav), codec.decode(codec.encode(wav))
    plan = train.CodecPlan("codec_decoder", 4, batch=2, seconds=0.5, reseed_until=0.0, trains=("decoder",))
    train.train_codec(codec, waves, tmp_path, plan, say=lambda _: None)
    assert torch.equal(codec.encode(wav), before) and not torch.equal(codec.decode(before), sound)
    assert all(p.requires_grad for p in codec.parameters())


def test_batches_for_a_gpu_come_from_other_processes():
    def make(worker):
        while True:
            yield os.getpid(), worker, torch.full((2,), worker)

    assert next(train.in_workers(make, torch.device("cpu")))[:2] == (os.getpid(), 0)
    stream = train.in_workers(make, torch.device("cuda"))
    some = [next(stream) for _ in range(6)]
    assert os.getpid() not in {pid for pid, _, _ in some}
    assert all(torch.equal(tensor, torch.full((2,), worker)) for _, worker, tensor in some)


def test_where_to_look_is_the_same_known_before_or_found_by_the_loss(corpus):
    random.seed(0)
    model, sizes = OmniModel(TINY).eval(), torch.arange(40.0) % 3 + 1
    items = [one for one, _ in zip(corpus.draw({"T1A2": 0.5, "T1T2": 0.5}), range(8), strict=False)]
    heard = gather(items, [lay_out(item, TINY.vocab, 0) for item in items], TINY.vocab, None)
    assert 0 < heard.speaks.sum() < len(heard.speaks)
    known = replace(heard, looks=train.expected_looks(heard, TINY.vocab, sizes), turns=())
    found, given = (omni_loss(model, one, guide=1.0, sizes=sizes)["guide"] for one in (heard, known))
    assert torch.equal(found, given) and found > 0


def test_only_the_last_round_of_a_schedule_gets_less(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "cosine", lambda step, steps, peak, end, warmup: seen.append((step, steps, peak)) or 0.0)
    weight = nn.Parameter(torch.ones(2))
    loop = Loop("l", nn.Linear(1, 1), [weight], 6, 0.4, 0.0, None, restarts=(2, 4), last=0.5, say=lambda _: None)
    loop.run(lambda step: dict(loss=weight.sum()))
    assert seen == [(0, 2, 0.4), (1, 2, 0.4), (0, 2, 0.4), (1, 2, 0.4), (0, 2, 0.2), (1, 2, 0.2)]
