"""Muon against torch's own, and which parameters it gets."""

import pytest
import torch
from torch import nn

from omni_lite.model import OmniModel
from omni_lite.recipes import muon
from omni_lite.recipes.muon import Muon, MuonAndAdamW, inner_matrices, optimizers_of
from tests.training import TINY


@pytest.mark.parametrize("pays", [False, True])
def test_muon_is_torchs(pays, monkeypatch):
    """To the rounding of bfloat16, in which torch's works everywhere and ours where that pays."""
    monkeypatch.setattr(muon, "bf16_pays", lambda device: pays)
    generator = torch.Generator().manual_seed(0)
    shapes = (12, 30), (30, 12), (16, 16), (12, 30)             # those of one shape are worked out together
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    begun = [p.detach().clone() for p in ours]
    own = Muon(ours, lr=0.01, weight_decay=0.1)
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


def test_muon_gets_the_inner_matrices_and_adamw_all_else():
    model = OmniModel(TINY)
    inner = inner_matrices(model, ("trunk", "tts_adapter"))
    assert inner and all(p.dim() == 2 for p in inner)
    outer = {model.text_embed.weight, model.audio_embed.weight, model.tts_adapter.head.weight,
             model.tts_adapter.text.weight}
    assert not inner & outer and not inner & set(model.asr_adapter.parameters())
    make = optimizers_of(model, ("trunk", "tts_adapter"), {"text_embed": 0.4, "trunk": 0.5})
    adamw, own = make(list(model.parameters()), 1e-3)
    assert isinstance(own, Muon) and {p for group in own.param_groups for p in group["params"]} == inner
    rates = {p: group["rate"] for one in (adamw, own) for group in one.param_groups for p in group["params"]}
    assert set(rates) == set(model.parameters())
    assert rates[model.text_embed.weight] == 0.4 and rates[model.audio_embed.weight] == 1.0
    assert all(rates[p] == 0.5 for p in model.trunk.parameters())


def test_without_matrices_there_is_one_optimizer():
    model = nn.Linear(3, 2)
    assert [type(one) for one in MuonAndAdamW()(list(model.parameters()), 1e-3)] == [torch.optim.AdamW]
    assert [type(one) for one in MuonAndAdamW({model.weight})([model.weight], 1e-3)] == [Muon]
