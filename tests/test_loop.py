"""The training loop: schedule, accumulation, resuming, and what it refuses."""

import os
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from omni_lite import loop as module
from omni_lite.loop import Loop, adamw, cosine, in_workers
from omni_lite.recipes.muon import MuonAndAdamW
from tests import assert_one_sentence


def quiet(_: str) -> None:
    """Say nothing."""


def toy(model, folder=None, steps=20, **options):
    return Loop("toy", model, list(model.parameters()), steps, 1e-2, 1e-4, folder, say=quiet, **options)


def error_of(model, x):
    return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}


def test_the_schedule_warms_up_and_falls_to_its_end():
    rates = [cosine(step, 100, 1e-3, 4e-6, 10) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(4e-6) and all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_weight_decay_acts_on_matrices_alone():
    model = nn.Linear(4, 2)
    (optimizer,) = adamw(list(model.parameters()), 1e-3, decay=0.1)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {id(model.weight): 0.1, id(model.bias): 0.0}


def numbers(first):
    """Batches that depend on their place in the stream alone."""
    stream = (torch.randn(8, 4, generator=torch.Generator().manual_seed(i)) for i in range(10_000))
    return islice(stream, first, None)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("muon", [False, True])
def test_a_killed_run_ends_where_an_unbroken_one_does(tmp_path, monkeypatch, muon, accumulate):
    """It asks for the batches that it has not seen, and torch's generator goes on where it was."""
    monkeypatch.setattr(module, "SAVE_SECONDS", -1.0)                      # save after every step
    asked = []

    def run(folder, stop_at=None):
        torch.manual_seed(3)
        model, count = nn.Linear(4, 1), 0

        def batches(first):
            asked.append(first)
            return numbers(first * accumulate)

        def losses(x):
            nonlocal count
            count += 1
            if count == stop_at:
                raise KeyboardInterrupt
            return error_of(model, x + 0.1 * torch.randn(x.shape))

        made = MuonAndAdamW({model.weight}) if muon else adamw
        try:
            toy(model, folder, optimizers=made, accumulate=accumulate).run(batches, losses)
        except KeyboardInterrupt:
            pass
        return model.weight.detach().clone()

    whole = run(tmp_path / "whole")
    run(tmp_path / "broken", stop_at=11 * accumulate)                      # in the eleventh step
    assert torch.equal(run(tmp_path / "broken"), whole)
    assert asked == [0, 0, 10]


def test_a_finished_run_takes_no_step(tmp_path):
    model, said = nn.Linear(4, 1), []
    toy(model, tmp_path, steps=3).run(numbers, lambda x: error_of(model, x))
    before = model.weight.detach().clone()
    replace(toy(model, tmp_path, steps=3), say=said.append).run(numbers, lambda x: error_of(model, x))
    assert said == ["toy  goes on at step 3/3"] and torch.equal(model.weight, before)


def test_a_state_of_other_optimizers_is_named(tmp_path):
    model = nn.Linear(4, 1)
    toy(model, tmp_path, steps=2).run(numbers, lambda x: error_of(model, x))
    other = toy(model, tmp_path, steps=2, optimizers=MuonAndAdamW({model.weight}))
    with pytest.raises(ValueError, match="toy.pt comes from a training with other optimizers: delete it"):
        other.run(numbers, lambda x: error_of(model, x))


def test_accumulated_batches_are_one_large_batch():
    """Where each has as many targets, the mean of their gradients is that of all targets together.

    With plain gradient descent, because AdamW's steps do not depend on the size of a gradient.
    """
    weights = []
    for accumulate in (1, 4):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)

        def batches(first, pieces=accumulate):
            return (piece for x in numbers(first) for piece in x.chunk(pieces))

        seen = []
        loop = toy(model, steps=5, accumulate=accumulate, clip=1e9, warmup=0,
                   optimizers=lambda trained, peak: [torch.optim.SGD(trained, peak)],
                   each=lambda _, floats, seen=seen: seen.append(floats["loss"]))
        loop.run(batches, lambda x, model=model: error_of(model, x))
        weights.append((model.weight.detach().clone(), torch.tensor(seen)))
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
def test_training_stops_at_a_loss_that_is_not_finite_and_keeps_the_last_state(tmp_path, monkeypatch, spoil):
    monkeypatch.setattr(module, "SAVE_SECONDS", -1.0)
    model = nn.Linear(4, 1)
    good = {}

    def losses(x):
        loss = error_of(model, x)["loss"]
        if len(good) == 3:
            loss = loss * float("nan") if spoil == "loss" else loss + (model.weight * 0).abs().sqrt().sum()
        return {"loss": loss}

    def after(step):
        good[step] = model.weight.detach().clone()

    with pytest.raises(ValueError) as error:
        toy(model, tmp_path).run(numbers, losses, after)
    assert_one_sentence(error, "toy", "step 4", "nan", "lower the learning rate")
    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert state["step"] == 3 and torch.equal(state["model"]["weight"], good[2])
    assert torch.equal(model.weight, good[2])                              # the step was not taken either


def test_a_batch_without_anything_that_counts_changes_nothing():
    model = nn.Linear(4, 1)
    before, seen = model.weight.detach().clone(), []
    for optimizers in (adamw, MuonAndAdamW({model.weight})):
        loop = toy(model, steps=2, optimizers=optimizers, each=lambda step, floats: seen.append(floats))
        loop.run(numbers, lambda _: {"loss": torch.zeros(())})
    assert torch.equal(model.weight, before) and seen == [{"loss": 0.0}] * 4


def test_a_group_with_a_rate_gets_that_share_of_the_learning_rate():
    model = nn.Linear(4, 1)
    made = []

    def optimizers(trained, peak):
        made.extend(MuonAndAdamW(rates={model.bias: 0.5})(trained, peak))
        return made

    toy(model, steps=1, warmup=1, optimizers=optimizers).run(numbers, lambda x: error_of(model, x))
    rates = {id(p): group["lr"] for one in made for group in one.param_groups for p in group["params"]}
    assert rates == {id(model.weight): 1e-2, id(model.bias): 5e-3}


def test_batches_for_a_gpu_come_from_other_processes():
    def make(worker):
        while True:
            yield os.getpid(), worker, torch.full((2,), worker)

    assert next(in_workers(make, torch.device("cpu")))[:2] == (os.getpid(), 0)
    stream = in_workers(make, torch.device("cuda"))
    some = [next(stream) for _ in range(6)]
    assert os.getpid() not in {pid for pid, _, _ in some}
    assert all(torch.equal(tensor, torch.full((2,), worker)) for _, worker, tensor in some)
