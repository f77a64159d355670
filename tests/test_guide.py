"""Guided attention: the hint lies where the words are, and the head that is read is the head that runs."""

import random
from dataclasses import replace

import torch

from omni_lite.data import Heard, Item, lay_out
from omni_lite.guide import byte_lengths, expected_attention, guide_loss, head_attention
from omni_lite.model import OmniModel
from omni_lite.streams import Task, collate
from omni_lite.train import omni_loss, watch
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
    assert gradient[:d].abs().sum() > 0 and (gradient[d:] == 0).all()


def test_watching_ends_with_its_context():
    model = OmniModel(replace(TINY, tts_blocks=3))
    with watch(model) as seen:
        model.speak(torch.randn(1, 4, 32))
    assert seen[0] is model.tts_adapter.blocks[1] and seen[1].shape == (1, 4, 32)
    model.speak(torch.randn(1, 4, 32))
    assert len(seen) == 2
    with watch(OmniModel(replace(TINY, tts_blocks=0))) as seen:
        assert seen == []
