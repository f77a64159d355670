"""Compiled blocks: for long phases only, and themselves again afterwards."""

import pytest
import torch

from omni_lite.model import OmniModel
from omni_lite.recipes import compiling
from omni_lite.recipes.compiling import COMPILE_STEPS, compiled
from tests.training import TINY


@pytest.fixture
def blocks(monkeypatch):
    """The blocks of a tiny model; a compiler that compiles nothing."""
    model = OmniModel(TINY)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: lambda *args, **kwargs: function(*args, **kwargs))
    return model, [*model.trunk.layers, *model.tts_adapter.blocks]


def test_blocks_are_compiled_for_long_phases_and_are_themselves_again_afterwards(blocks, monkeypatch):
    model, blocks = blocks
    with compiled(model, COMPILE_STEPS):
        assert all("forward" in vars(block) for block in blocks)
        model(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 7, 3, dtype=torch.long))
    assert not any("forward" in vars(block) for block in blocks)
    with compiled(model, COMPILE_STEPS - 1):
        assert not any("forward" in vars(block) for block in blocks)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with compiled(model, COMPILE_STEPS):
        assert not any("forward" in vars(block) for block in blocks)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_no_compiled_block(blocks, error):
    model, blocks = blocks
    with pytest.raises(error), compiled(model, COMPILE_STEPS):
        raise error
    assert not any("forward" in vars(block) for block in blocks)
