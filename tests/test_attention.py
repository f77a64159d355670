"""Guided attention: the target lies where the words are, and the head that is read is the head that runs."""

import math
import random
from dataclasses import replace

import torch

from omni_lite.data import Heard, gather
from omni_lite.model import SHARPER, OmniModel
from omni_lite.recipes.attention import (
    GuidedAttention,
    GuidedCopying,
    byte_lengths,
    copying_blocks,
    expected_attention,
    expected_copying,
    guide_loss,
    guided_block,
    head_attention,
    heads_loss,
)
from omni_lite.recipes.lite.items import LiteItem
from omni_lite.streams import Batch, Task, collate
from omni_lite.train import omni_loss, watching
from tests.training import TINY, VOCAB, Letters

SIZES = byte_lengths(Letters(), VOCAB)


def spoken(answers, frames, turns=()) -> list[LiteItem]:
    """Items that say these answers in so many frames."""
    turns = turns or [None] * len(answers)
    return [LiteItem(Task.T1A2, (1, 2), answer, codes=torch.full((7, T), 3), turns=known)
            for answer, T, known in zip(answers, frames, turns, strict=True)]


def laid(items) -> Batch:
    """The items as a batch; what is heard takes nine positions."""
    return collate([item.lay_out(VOCAB, 9) for item in items], VOCAB)


# --- where to look -----------------------------------------------------------------------------------------


def test_the_target_walks_through_the_text_in_order_and_by_its_letters():
    frames, weights = expected_attention(laid(spoken([(3, 5), (4,)], [8, 3])), VOCAB, SIZES)
    assert frames.sum(1).tolist() == [8, 3]
    says = torch.tensor([4, 5])                          # prompt: input_t, 2 tokens, eot, answer_t: it says the first
    best = [set(says[row[says] == 1].tolist()) for row in weights[0][frames[0]]]
    assert best == [{4}, {4}] + [{5}] * 6                # token 3 has 1 letter, token 5 has 3: 2 and 6 of 8 frames
    assert (weights[0][frames[0]][:, [0, 1, 2, 3, 6]] == 0).all()
    assert (weights[1][frames[1]][:, 4] == 1).all()      # one token: always its turn


def test_known_turns_stand_in_for_letters():
    known = [torch.tensor([6.0, 8.0]), None]
    frames, weights = expected_attention(laid(spoken([(3, 5), (3, 5)], [8, 8])), VOCAB, SIZES, known)
    best = [[set(says[row[says] == 1].tolist()) for row in weights[b][frames[b]]]
            for b, says in enumerate([torch.tensor([4, 5])] * 2)]
    assert best == [[{4}] * 6 + [{5}] * 2, [{4}] * 2 + [{5}] * 6]
    off = weights[0][frames[0]][:, 5]                    # the second token before its turn: one frame off is near
    torch.testing.assert_close(off[[5, 3]], torch.tensor([math.exp(-0.125), math.exp(-3.125)]))


def test_copying_looks_at_the_token_to_say_and_before_it_at_its_predecessor():
    random.seed(0)
    text, other = (3, 5, 3, 7), (6, 2)
    items = [LiteItem(Task.T1T2, text, text, copy=True), LiteItem(Task.A1T1, text, text, slow=True),
             LiteItem(Task.T1T2, text, other), LiteItem(Task.A1T1, text, text, clip=0)]
    read = laid(items)
    (steps, source), (after, before) = expected_copying(read, VOCAB)
    assert not steps[2:].any() and not after[2:].any()   # an answer copies nothing; what is heard has no token to see
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


# --- the loss of a head ------------------------------------------------------------------------------------


def test_the_loss_is_nothing_where_the_head_looks_at_the_right_word_and_large_elsewhere():
    frames, weights = expected_attention(laid(spoken([(3, 5)], [8])), VOCAB, SIZES)
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


def test_the_second_block_of_the_voice_is_guided():
    model = OmniModel(replace(TINY, tts_blocks=3))
    assert guided_block(model) is model.tts_adapter.blocks[1]
    assert guided_block(OmniModel(replace(TINY, tts_blocks=0))) is None
    assert GuidedAttention(1.0).watches(OmniModel(replace(TINY, tts_blocks=0))) == ()
    layers = OmniModel(replace(TINY, trunk=TINY.trunk | dict(num_hidden_layers=6)))
    assert copying_blocks(layers) == [layers.trunk.layers[3], layers.trunk.layers[1]]


# --- as auxiliary losses -----------------------------------------------------------------------------------


def test_the_guide_adds_to_the_loss_and_reaches_the_block_it_watches():
    torch.manual_seed(0)
    model = OmniModel(TINY)
    items = spoken([(3, 5, 7), (4,)], [9, 3])
    heard = Heard(laid(items), None, None, items)
    loss = GuidedAttention(0.5).ready(Letters(), VOCAB)
    plain, guided = omni_loss(model, heard), omni_loss(model, heard, losses=[loss])
    torch.testing.assert_close(guided["loss"], plain["loss"] + 0.5 * guided["guide"])
    guided["guide"].backward()
    d = model.tts_adapter.blocks[0].self_attn.head_dim
    gradient = model.tts_adapter.blocks[0].self_attn.q_proj.weight.grad
    moved = gradient.view(4, d, -1).abs().sum((1, 2)) > 0
    assert moved.tolist() == [True, False, True, False]  # one of each group that shares keys and values


def test_the_guide_is_that_of_the_sequences_that_speak_and_heeds_their_turns():
    torch.manual_seed(0)
    model, loss = OmniModel(TINY).eval(), GuidedAttention(1.0).ready(Letters(), VOCAB)
    (said,), (known,) = spoken([(3, 5)], [8]), spoken([(3, 5)], [8], [torch.tensor([1.0, 8.0])])
    silent = LiteItem(Task.T1T2, (1, 2), (3,) * 20)      # longer, so that all batches are padded alike
    found = {}
    for name, items in dict(alone=[silent, said], after=[silent, silent, said], known=[silent, known]).items():
        heard = gather(items, [item.lay_out(VOCAB, 0) for item in items], VOCAB, None)
        found[name] = omni_loss(model, heard, losses=[loss])["guide"]
    torch.testing.assert_close(found["alone"], found["after"])
    assert not torch.isclose(found["alone"], found["known"])
    nobody = gather([silent], [silent.lay_out(VOCAB, 0)], VOCAB, None)
    assert "guide" not in omni_loss(model, nobody, losses=[loss])


def test_guided_copying_adds_to_the_loss_and_is_nothing_where_nothing_is_copied():
    torch.manual_seed(0)
    model = OmniModel(TINY)
    text = (3, 5, 7)
    copied, answered = (Heard(laid([LiteItem(Task.T1T2, text, text, copy=copy)]), None, None) for copy in (True, False))
    plain, guided = omni_loss(model, copied), omni_loss(model, copied, losses=[GuidedCopying(0.5)])
    assert guided["copying"] > 0
    torch.testing.assert_close(guided["loss"], plain["loss"] + 0.5 * guided["copying"])
    assert omni_loss(model, answered, losses=[GuidedCopying(0.5)])["copying"] == 0
    block, seen = copying_blocks(model)[0], {}
    with watching([block], seen):
        model.run(model.embed(copied.batch.text_in, copied.batch.audio_in))
    steps, source = expected_copying(copied.batch, VOCAB)[0]
    heads = [guide_loss(head_attention(block, seen[block], model.trunk.rotary_emb, head), steps, source)
             for head in range(0, 4, block.self_attn.num_key_value_groups)]
    torch.testing.assert_close(heads_loss(block, seen[block], model.trunk.rotary_emb, steps, source),
                               sum(heads) / len(heads))


# --- what a position sounds like ---------------------------------------------------------------------------


def test_a_position_that_sums_to_what_a_word_sums_to_is_heard_as_that_word():
    torch.manual_seed(0)
    model = OmniModel(TINY)
    words = model.text_embed.weight
    silence = model.audio_embed(model.bands[:, 0] + VOCAB.pad_a).sum(0)
    heard = (words[torch.tensor([7, VOCAB.pad_t, 3])] + silence - words[VOCAB.pad_t]) / 7
    log_probs, distance = model.likeness(heard[None])
    assert log_probs[0].argmax(-1).tolist() == [7, VOCAB.text_base, 3]
    torch.testing.assert_close(distance, torch.zeros(1, 3), atol=1e-5, rtol=0)
    twice = heard + (words[torch.tensor([7, VOCAB.pad_t, 3])]) / 7          # the same direction, twice as far
    assert (model.likeness(twice[None])[1] > 0.3).all()


def test_what_is_heard_clearly_is_read_as_if_it_were_written():
    torch.manual_seed(0)
    ear = replace(TINY.ear, stack=1, soft_words=True)
    model = OmniModel(replace(TINY, ear=ear))
    torch.nn.init.normal_(model.text_embed.weight)
    words = model.text_embed.weight
    silence = words[VOCAB.pad_t] - model.audio_embed(model.bands[:, 0] + VOCAB.pad_a).sum(0)
    beside = (words[torch.tensor([7, VOCAB.pad_t, 3])] - silence) / 7 + 0.05 * torch.randn(3, 32) / 7
    model.asr_adapter.forward = lambda features, positions: beside[None]
    pads, text = torch.full((1, 7, 5), VOCAB.pad_a), torch.full((1, 5), VOCAB.pad_t)
    heard = model.embed(text, pads, torch.zeros(1, 3, 8))
    written = text.clone()
    written[0, 1:4] = torch.tensor([7, VOCAB.pad_t, 3])
    torch.testing.assert_close(heard, model.embed(written, pads), atol=1e-4, rtol=0)
    likely = model.likeness(beside[None])[0].exp() ** SHARPER
    mixed = likely / likely.sum(-1, keepdim=True) @ torch.cat([words[: VOCAB.text_base], words[VOCAB.pad_t][None]])
    torch.testing.assert_close(model.soft_words(beside[None]), (mixed - silence) / 7)
