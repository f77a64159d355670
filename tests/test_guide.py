"""Guided attention: the hint lies where the words are, and the head that is read is the head that runs."""

import itertools
import math
import random
from dataclasses import replace

import pytest
import torch

from omni_lite.data import Heard, Item, lay_out
from omni_lite.guide import (
    byte_lengths,
    ctc_loss,
    expected_attention,
    expected_copying,
    guide_loss,
    head_attention,
    heads_loss,
    spoken_when,
    teaching_loss,
    turns_of,
)
from omni_lite.model import SHARPER, OmniModel
from omni_lite.streams import Task, collate
from omni_lite.train import copying_blocks, guided_block, omni_loss, taught_by, watch
from omni_lite.vocab import Vocab
from tests.test_train import TINY, Letters

VOCAB = Vocab(text_base=40, codebook=16)
SIZES = byte_lengths(Letters(), VOCAB)


def batch(answers, frames):
    items = [Item(Task.T1A2, (1, 2), answer, codes=torch.full((7, T), 3))
             for answer, T in zip(answers, frames, strict=True)]
    return collate([lay_out(item, VOCAB, 0) for item in items], VOCAB)


def test_the_hint_walks_through_the_text_in_order_and_by_its_letters():
    frames, weights = expected_attention(batch([(3, 5), (4,)], [8, 3]), VOCAB, SIZES)
    assert frames.sum(1).tolist() == [8, 3]
    says = torch.tensor([4, 5])                          # prompt: input_t, 2 tokens, eot, answer_t: it says the first
    best = [set(says[row[says] == 1].tolist()) for row in weights[0][frames[0]]]
    assert best == [{4}, {4}] + [{5}] * 6                # token 3 has 1 letter, token 5 has 3: 2 and 6 of 8 frames
    assert (weights[0][frames[0]][:, [0, 1, 2, 3, 6]] == 0).all()
    assert (weights[1][frames[1]][:, 4] == 1).all()      # one token: always its turn


def test_known_turns_stand_in_for_letters():
    known = [torch.tensor([6.0, 8.0]), None]
    frames, weights = expected_attention(batch([(3, 5), (3, 5)], [8, 8]), VOCAB, SIZES, known)
    best = [[set(says[row[says] == 1].tolist()) for row in weights[b][frames[b]]]
            for b, says in enumerate([torch.tensor([4, 5])] * 2)]
    assert best == [[{4}] * 6 + [{5}] * 2, [{4}] * 2 + [{5}] * 6]
    off = weights[0][frames[0]][:, 5]                    # the second token before its turn: one frame off is near
    torch.testing.assert_close(off[[5, 3]], torch.tensor([math.exp(-0.125), math.exp(-3.125)]))


def test_words_are_found_where_the_likeliest_path_of_ctc_says_them():
    torch.manual_seed(0)
    said = [(3,), (3, 5), (3, 3), (2, 5, 2), (), (1, 2, 3)]
    positions = torch.tensor([6, 5, 6, 4, 6, 2])
    log_probs = (3 * torch.randn(6, 6, 9)).log_softmax(-1)
    found = spoken_when(log_probs, positions, said)
    for row, tokens in enumerate(said[:4]):
        n, blank = int(positions[row]), 8
        paths = [path for path in itertools.product((*set(tokens), blank), repeat=n)
                 if tuple(token for i, token in enumerate(path)
                          if token != blank and (i == 0 or path[i - 1] != token)) == tokens]
        best = max(paths, key=lambda path: sum(log_probs[row, i, token].item() for i, token in enumerate(path)))
        runs = [[i for i, _ in run] for token, run in itertools.groupby(enumerate(best), key=lambda pair: pair[1])
                if token != blank]
        assert found[row].tolist() == pytest.approx([sum(run) / len(run) for run in runs])
        ends = turns_of(found[row], n)
        assert ends[-1] == n and (ends.diff() >= 0).all()
    assert found[4] is None and found[5] is None         # nothing is said; no room for three in two positions


def test_the_loss_is_nothing_where_the_head_looks_at_the_right_word_and_large_elsewhere():
    frames, weights = expected_attention(batch([(3, 5)], [8]), VOCAB, SIZES)
    right = (weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)).clamp(min=1e-9).log()
    wrong = torch.full_like(weights, -20.0)
    wrong[..., 0] = 0.0
    assert guide_loss(torch.where(weights == 1, 0.0, -20.0), frames, weights) < 1e-3
    assert guide_loss(right, frames, weights) < 0.5
    assert guide_loss(wrong, frames, weights) > 5


def test_the_attention_is_that_of_the_blocks_own_head():
    torch.manual_seed(0)
    trunk = TINY.trunk | dict(attn_implementation="eager")
    model = OmniModel(replace(TINY, tts_blocks=1, trunk=trunk)).eval()
    block, rotary = model.tts_adapter.blocks[0], model.tts_adapter.rotary
    block.self_attn.config._attn_implementation = "eager"
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.5)
    x = torch.randn(2, 6, 32)
    mask = torch.full((6, 6), -torch.inf).triu(1)[None, None]
    kept = []
    block.self_attn.register_forward_hook(lambda module, args, out: kept.append(out[1]))
    block(x, attention_mask=mask, position_embeddings=rotary(x, torch.arange(6)[None]))
    for head in range(4):
        ours = head_attention(block, x, rotary, head).exp()
        torch.testing.assert_close(ours, kept[0][:, head], rtol=1e-5, atol=1e-6)


def test_the_guide_adds_to_the_loss_and_reaches_the_block_it_watches():
    torch.manual_seed(0)
    random.seed(0)
    model = OmniModel(TINY)
    heard = Heard(batch([(3, 5, 7), (4,)], [9, 3]), None, None)
    plain, guided = omni_loss(model, heard), omni_loss(model, heard, guide=0.5, sizes=SIZES)
    torch.testing.assert_close(guided["loss"], plain["loss"] + 0.5 * guided["guide"])
    guided["guide"].backward()
    d = model.tts_adapter.blocks[0].self_attn.head_dim
    gradient = model.tts_adapter.blocks[0].self_attn.q_proj.weight.grad
    moved = gradient.view(4, d, -1).abs().sum((1, 2)) > 0
    assert moved.tolist() == [True, False, True, False]  # one of each group that shares keys and values


def test_copying_looks_at_the_token_to_say_and_before_it_at_its_predecessor():
    random.seed(0)
    text, other = (3, 5, 3, 7), (6, 2)
    items = [Item(Task.T1T2, text, text, copy=True), Item(Task.A1T1, text, text, slow=True),
             Item(Task.T1T2, text, other), Item(Task.A1T1, text, text, clip=0)]
    read = collate([lay_out(item, VOCAB, 9) for item in items], VOCAB)
    (steps, source), (after, before) = expected_copying(read, VOCAB)
    assert not steps[2:].any() and not after[2:].any()   # an answer is no copy, and what is heard has no token to see
    (steps, source), (after, before) = expected_copying(read, VOCAB, [None, None, None, torch.tensor([0.0, 2, 3.5, 7])])
    assert after[3].nonzero()[:, 0].tolist() == [3, 4, 8]
    assert [row.nonzero()[:, 0].tolist() for row in source[3][steps[3]]] == [[1], [3], [4], [8]]
    for row in (0, 1):
        places = [s for s in range(read.text_in.shape[1]) if read.text_in[row, s] < VOCAB.text_base][: len(text)]
        assert [read.text_in[row, s].item() for s in places] == list(text)
        says = steps[row].nonzero()[:, 0].tolist()
        assert [read.text_target[row, s].item() for s in says] == list(text)
        assert [source[row, s].nonzero()[:, 0].tolist() for s in says] == [[place] for place in places]
        assert after[row].nonzero()[:, 0].tolist() == places[1:]     # the first has none before it
        assert [before[row, s].nonzero()[:, 0].tolist() for s in places[1:]] == [[place] for place in places[:-1]]


def test_guided_copying_adds_to_the_loss_and_is_nothing_where_nothing_is_copied():
    torch.manual_seed(0)
    random.seed(0)
    model = OmniModel(TINY)
    text = (3, 5, 7)
    copied, answered = (Heard(collate([lay_out(Item(Task.T1T2, text, text, copy=copy), VOCAB, 0)], VOCAB), None, None)
                        for copy in (True, False))
    plain, guided = omni_loss(model, copied), omni_loss(model, copied, copying=0.5)
    assert guided["copying"] > 0
    torch.testing.assert_close(guided["loss"], plain["loss"] + 0.5 * guided["copying"])
    assert omni_loss(model, answered, copying=0.5)["copying"] == 0
    block = copying_blocks(model)[0]
    with watch(block) as seen:
        model.run(model.embed(copied.batch.text_in, copied.batch.audio_in))
    steps, source = expected_copying(copied.batch, VOCAB)[0]
    heads = [guide_loss(head_attention(block, seen[0][0], model.trunk.rotary_emb, head), steps, source)
             for head in range(0, 4, block.self_attn.num_key_value_groups)]
    torch.testing.assert_close(heads_loss(block, seen[0][0], model.trunk.rotary_emb, steps, source),
                               sum(heads) / len(heads))


def test_watching_ends_with_its_context():
    model = OmniModel(replace(TINY, tts_blocks=3))
    block = guided_block(model)
    assert block is model.tts_adapter.blocks[1] and guided_block(OmniModel(replace(TINY, tts_blocks=0))) is None
    hidden, text_ids = torch.randn(1, 4, 32), torch.zeros(1, 4, dtype=torch.int64)
    with watch(block) as seen:
        model.speak(hidden, text_ids=text_ids)
    assert len(seen) == 1 and seen[0][0].shape == (1, 4, 32)
    model.speak(hidden, text_ids=text_ids)
    assert len(seen) == 1
    with watch(None) as seen:
        assert seen == []


def test_ctc_is_the_sum_over_all_placements():
    torch.manual_seed(0)
    log_probs = torch.randn(2, 4, 4).log_softmax(-1)     # 3 tokens and none; 4 positions, of which row 1 has 3
    said, lengths = [(0, 2), (1,)], torch.tensor([4, 3])
    expected = []
    for row, wanted in enumerate(said):
        total = 0.0
        for path in itertools.product(range(4), repeat=int(lengths[row])):
            read = [t for i, t in enumerate(path) if t != 3 and (i == 0 or path[i - 1] != t)]
            if read == list(wanted):
                total += math.exp(sum(log_probs[row, i, t].item() for i, t in enumerate(path)))
        expected.append(-math.log(total) / len(wanted))
    assert ctc_loss(log_probs, lengths, said).item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert ctc_loss(log_probs, lengths, [said[0], ()]).item() == pytest.approx(expected[0], rel=1e-5)


def test_ctc_and_its_gradient_are_those_of_torch():
    torch.manual_seed(0)
    said, lengths = [(3, 5, 5, 2), (1,), (), (2, 4, 2), (1, 2, 3)], torch.tensor([7, 3, 5, 6, 2])
    ours, theirs = (torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(1), requires_grad=True) for _ in "ab")
    got = ctc_loss(ours.log_softmax(-1), lengths, said)
    heard = [0, 1, 3, 4]
    want = torch.nn.functional.ctc_loss(
        theirs.log_softmax(-1)[heard].transpose(0, 1), torch.tensor([t for tokens in said for t in tokens]),
        lengths[heard], torch.tensor([4, 1, 3, 3]), blank=8, zero_infinity=True)
    torch.testing.assert_close(got, want)
    got.backward()
    want.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_position_that_sums_to_what_a_word_sums_to_is_heard_as_that_word():
    torch.manual_seed(0)
    model = OmniModel(TINY)
    vocab, words = VOCAB, model.text_embed.weight
    silence = model.audio_embed(model.bands[:, 0] + vocab.pad_a).sum(0)
    heard = (words[torch.tensor([7, vocab.pad_t, 3])] + silence - words[vocab.pad_t]) / 7
    log_probs, distance = model.likeness(heard[None])
    assert log_probs[0].argmax(-1).tolist() == [7, vocab.text_base, 3]
    torch.testing.assert_close(distance, torch.zeros(1, 3), atol=1e-5, rtol=0)
    twice = heard + (words[torch.tensor([7, vocab.pad_t, 3])]) / 7          # the same direction, twice as far
    assert (model.likeness(twice[None])[1] > 0.3).all()


def test_what_is_heard_clearly_is_read_as_if_it_were_written():
    torch.manual_seed(0)
    ear = replace(TINY.ear, stack=1, soft_words=True)
    model, vocab = OmniModel(replace(TINY, ear=ear)), VOCAB
    torch.nn.init.normal_(model.text_embed.weight)
    words = model.text_embed.weight
    silence = words[vocab.pad_t] - model.audio_embed(model.bands[:, 0] + vocab.pad_a).sum(0)
    beside = (words[torch.tensor([7, vocab.pad_t, 3])] - silence) / 7 + 0.05 * torch.randn(3, 32) / 7
    model.asr_adapter.forward = lambda features, positions: beside[None]
    pads, text = torch.full((1, 7, 5), vocab.pad_a), torch.full((1, 5), vocab.pad_t)
    heard = model.embed(text, pads, torch.zeros(1, 3, 8))
    written = text.clone()
    written[0, 1:4] = torch.tensor([7, vocab.pad_t, 3])
    torch.testing.assert_close(heard, model.embed(written, pads), atol=1e-4, rtol=0)
    likely = model.likeness(beside[None])[0].exp() ** SHARPER
    mixed = likely / likely.sum(-1, keepdim=True) @ torch.cat([words[: vocab.text_base], words[vocab.pad_t][None]])
    torch.testing.assert_close(model.soft_words(beside[None]), (mixed - silence) / 7)


def test_ctc_reaches_the_adapter_and_nothing_else():
    torch.manual_seed(0)
    model = OmniModel(TINY)
    item = Item(Task.A1T1, (3, 5), (3, 5), clip=0)
    laid = collate([lay_out(item, VOCAB, 4)], VOCAB)
    heard = Heard(laid, torch.randn(1, 8, 8), torch.tensor([8]), [(3, 5)])
    plain, hinted = omni_loss(model, heard), omni_loss(model, heard, ctc=0.3)
    torch.testing.assert_close(hinted["loss"], plain["loss"] + 0.3 * hinted["ctc"])
    alone = omni_loss(model, heard, rows=(), ctc=0.3)
    torch.testing.assert_close(alone["loss"], 0.3 * hinted["ctc"])
    hinted["ctc"].backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"asr_adapter"}


def test_who_hears_what_the_teachers_hear_learns_nothing_from_them():
    torch.manual_seed(0)
    model = OmniModel(TINY)
    teachers = [OmniModel(TINY).asr_adapter.eval() for _ in range(2)]
    features, positions = torch.randn(2, 8, 8), torch.tensor([2, 1])
    shown = taught_by(teachers, features, positions)
    one, other = (teacher(features, positions) for teacher in teachers)
    torch.testing.assert_close(shown, (one + other) / 2, rtol=0.02, atol=0.02)         # they run in bfloat16
    assert not shown.requires_grad
    torch.testing.assert_close(teaching_loss(model, shown, positions, shown), torch.tensor(0.0), rtol=0, atol=1e-5)

    heard = model.asr_adapter(features, positions)
    p, q = (model.likeness(each)[0] for each in (shown, heard))
    divergence = (p.exp() * (p - q)).sum(-1)                                           # (2, 4)
    wanted = (divergence[0, :2].sum() + divergence[1, 0]) / 3                          # three positions are no padding
    loss = teaching_loss(model, heard, positions, shown)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"asr_adapter"}

    item = Item(Task.A1T1, (3, 5), (3, 5), clip=0)
    laid = collate([lay_out(item, VOCAB, 4)], VOCAB)
    clip = Heard(laid, torch.randn(1, 8, 8), torch.tensor([8]), [(3, 5)])
    plain = omni_loss(model, clip, rows=(), ctc=0.3)
    taught = omni_loss(model, clip, rows=(), ctc=0.3, shown=taught_by(teachers, clip.features, torch.tensor([2])))
    torch.testing.assert_close(taught["loss"], plain["loss"] + taught["taught"])
    assert taught["taught"] > 0
