"""Rendered questions stand where heard ones would, and the trunk learns to read them as typed ones."""

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from omni_lite.data import batches, gather
from omni_lite.model import OmniModel
from omni_lite.recipes.lite import snippets
from omni_lite.recipes.lite.items import LiteItem, typed_too
from omni_lite.recipes.lite.reading import AsTyped, as_typed, clips_of, render, with_snippets
from omni_lite.recipes.lite.snippets import Emission, Snippets, collect, emissions
from omni_lite.streams import IGNORE, Task
from omni_lite.train import omni_loss
from tests.training import TINY, small_corpus

SOFT = replace(TINY, ear=replace(TINY.ear, soft_words=True))
NOTHING = SOFT.vocab.text_base


@pytest.fixture
def corpus(tmp_path):
    return small_corpus(tmp_path)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return OmniModel(SOFT).eval()


def spoken(*tokens: int) -> tuple[Emission, torch.Tensor]:
    """Two positions of each token."""
    words = torch.tensor([[token, NOTHING] for token in tokens for _ in range(2)])
    return Emission(words, torch.tensor([[0.9, 0.1]]).expand(len(words), 2)), torch.arange(len(tokens) + 1) * 2


def likeliest(heard: Emission) -> list[int]:
    return heard.words[torch.arange(len(heard)), heard.shares.argmax(1)].tolist()


def test_what_is_rendered_stands_where_the_clip_would(model, corpus, monkeypatch):
    """With all words of a position and the silence around it, an emission is the clip itself."""
    monkeypatch.setattr(snippets, "LIKELIEST", NOTHING + 1)
    monkeypatch.setattr(snippets, "MARGIN", 100)
    clip = corpus.store[2].float()[None]
    ((heard, cuts),) = emissions(model, clip, torch.tensor([clip.shape[1]]), [(9,)])
    assert cuts.tolist() == [0, len(heard)] and len(heard) == 6
    item = LiteItem(Task.A1T2, (9,), (10, 11), 2)
    real = gather([item], [item.lay_out(SOFT.vocab, 6)], SOFT.vocab, corpus.store)
    item = replace(item, clip=-1, emission=heard)
    drawn = gather([item], [item.lay_out(SOFT.vocab, 0)], SOFT.vocab, corpus.store)
    assert drawn.features is None and torch.equal(real.batch.text_in, drawn.batch.text_in)
    with torch.no_grad():
        wanted = model.embed(real.batch.text_in, real.batch.audio_in, real.features, real.lengths)
        x = model.embed(drawn.batch.text_in, drawn.batch.audio_in)
        torch.testing.assert_close(render(model, x, drawn), wanted)
    assert render(model, x, real) is x


def test_a_few_words_are_nearly_all_and_their_shares_are_whole(model, corpus):
    clip = corpus.store[1].float()[None]
    ((heard, cuts),) = emissions(model, clip, torch.tensor([9]), [(5, 7)])
    assert heard.words.shape[1] == snippets.LIKELIEST and (cuts.diff() > 0).all() and cuts[-1] == len(heard)
    torch.testing.assert_close(heard.shares.sum(1), torch.ones(len(heard)))
    assert emissions(model, clip[:, :2], torch.tensor([2]), [(5, 7)]) == [None]          # one position for two tokens


def test_a_question_is_put_together_from_runs_and_unknown_tokens_are_themselves(monkeypatch):
    monkeypatch.setattr(snippets, "BREAK", 0.0)
    found = Snippets(NOTHING)
    found.add(*spoken(1, 2, 3), (1, 2, 3))
    found.add(*spoken(4, 1), (4, 1))
    random.seed(0)
    for _ in range(20):
        heard = found.place((1, 2, 3, 7, 4))
        said = [word for word in likeliest(heard) if word != NOTHING]
        assert said == [1, 1, 2, 2, 3, 3, 7, 4, 4]
        assert heard.words.shape == heard.shares.shape and heard.words[0, 0] == heard.words[-1, 0] == NOTHING
        assert 9 + 3 <= len(heard) <= 9 + 3 * 4
        torch.testing.assert_close(heard.shares.sum(1), torch.ones(len(heard)))


def test_runs_of_neighbours_stay_together(monkeypatch):
    """The clip that says both tokens in a row gives both, if it is among those that are tried."""
    monkeypatch.setattr(snippets, "BREAK", 0.0)
    monkeypatch.setattr(snippets, "TRIES", 50)
    found = Snippets(NOTHING)
    heard, cuts = spoken(1, 2)
    found.add(Emission(heard.words, torch.tensor([[0.6, 0.4]]).expand(4, 2)), cuts, (1, 2))
    found.add(*spoken(1), (1,))
    found.add(*spoken(2), (2,))
    random.seed(0)
    shares = found.place((1, 2)).shares.max(1).values
    assert [round(float(one), 1) for one in shares if one < 1] == [0.6] * 4


def test_snippets_are_cut_from_the_clips_of_a_corpus(model, corpus):
    random.seed(0)
    torch.manual_seed(0)
    found = collect(model, clips_of(corpus, 0.5, torch.device("cpu")))
    assert sorted(said for _, _, said in found.clips) == sorted(said for _, said in corpus.transcribed)
    assert {token for token, places in found.where.items() if places} == {1, 2, 5, 6, 7, 9}
    corpus = replace(corpus, snippets=found)
    drawn = corpus.draw({"pseudo T1T2": 0.4, "pseudo copy": 0.3, "pseudo A1A2": 0.3})
    some = [next(drawn) for _ in range(20)]
    assert {one.task for one in some} == {Task.A1T2, Task.A1T1, Task.A1A2}
    assert all((one.codes is not None) == one.task.speaks for one in some)
    assert all(not one.hears and one.emission is not None for one in some)
    assert all(one.answer == one.question for one in some if one.task == Task.A1T1)


def test_the_typed_question_has_the_same_targets(corpus):
    heard = Emission(torch.zeros(5, 1, dtype=torch.int64), torch.ones(5, 1))
    codes = torch.arange(21).view(7, 3) % 4
    items = [LiteItem(Task.A1T2, (1, 2), (3, 4), emission=heard), LiteItem(Task.T1T2, (5,), (8,)),
             LiteItem(Task.A1T1, (9, 5), (9, 5), 0), LiteItem(Task.A1A2, (6,), (7, 2), codes=codes, emission=heard)]
    laid = gather(items, [item.lay_out(SOFT.vocab, 3) for item in items], SOFT.vocab, corpus.store).batch
    typed = typed_too(items, SOFT.vocab)
    assert torch.equal(laid.text_target[laid.text_target != IGNORE], typed.text_target[typed.text_target != IGNORE])
    assert typed.text_in[0, :5].tolist() == [SOFT.vocab.input_t, 1, 2, SOFT.vocab.eot, SOFT.vocab.answer_t]
    assert typed.text_in[2, 4] == SOFT.vocab.asr
    aloud, said = (one.pick(torch.tensor([3])) for one in (laid, typed))   # what is spoken is the same, step by step
    assert torch.equal(aloud.audio_target[aloud.audio_target != IGNORE], said.audio_target[said.audio_target != IGNORE])
    assert (said.text_target[0] == SOFT.vocab.pad_t).any(), "silence is compared, too"


def test_a_question_typed_is_read_as_before_and_one_that_is_heard_is_not(model, corpus):
    corpus = with_snippets(corpus, model, 0.0)
    loss = AsTyped(1.0).ready(model)
    random.seed(0)
    assert all(not p.requires_grad for p in loss.known.parameters())
    apart = {}
    for kind in ("T1T2", "pseudo T1T2"):
        one = next(batches(corpus.draw({kind: 1.0}), SOFT.vocab, 2, corpus.store, 200))
        with torch.no_grad():
            apart[kind] = float(omni_loss(model, one, ("text",), [loss], edit=render)["typed"])
    assert apart["T1T2"] < 1e-5 and apart["pseudo T1T2"] > 0.01


def test_snippets_are_the_same_for_the_same_seed(model, corpus):
    one, again, other = (with_snippets(corpus, model, 0.5, seed).snippets.clips for seed in (0, 0, 1))
    same = [all(torch.equal(a[0].words, b[0].words) and torch.equal(a[0].shares, b[0].shares)
                for a, b in zip(one, more, strict=True)) for more in (again, other)]
    assert same == [True, False]


def test_the_typed_side_gets_no_gradient(model):
    typed = typed_too([LiteItem(Task.T1T2, (1, 2), (3,))], SOFT.vocab)
    known = OmniModel(SOFT).trunk
    hidden = torch.randn(2, 32, requires_grad=True)
    model.train()
    as_typed(model, known, typed, hidden, nn.functional.linear(hidden, model.text_embed.weight)).backward()
    assert hidden.grad is not None and all(p.grad is None for p in known.parameters())
