"""This project's own weight files: safetensors, cards, and matrices packed into integers."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from omni_lite import checkpoints
from omni_lite.checkpoints import (
    GROUP,
    load_safetensors,
    pack_int,
    read_card,
    save_safetensors,
    sha256_of,
    unpack_int,
    write_card,
)
from tests import assert_one_sentence


def tensors(scale: float = 1.0) -> dict[str, Tensor]:
    transposed = scale * torch.arange(6.0).view(2, 3).t()
    return {"w": transposed, "ids": torch.tensor([1, 2]), "h": torch.ones(2).bfloat16()}


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    sha = save_safetensors(path, tensors(), {"step": "7"})
    assert sha == sha256_of(path)
    found = load_safetensors(path)
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    assert path.stat().st_mode & 0o444 == 0o444  # others may read it too


@pytest.mark.parametrize(
    "failure", [SafetensorError("No space left on device"), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_full_disk_keeps_the_old_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    path = tmp_path / "model.safetensors"
    save_safetensors(path, tensors())

    def disk_full(whole: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
        target.write_bytes(b"half of it")
        raise failure

    monkeypatch.setattr(checkpoints, "save_file", disk_full)
    with pytest.raises(OSError) as error:
        save_safetensors(path, tensors(2.0))
    assert_one_sentence(error, "model.safetensors", "No space left", "free some space")
    assert torch.equal(load_safetensors(path)["w"], tensors()["w"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_missing_truncated_and_foreign_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError) as error:
        load_safetensors(path)
    assert_one_sentence(error, "model.safetensors", "There is no weight file", "train")
    save_safetensors(path, tensors())
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:20], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError) as bad:
            load_safetensors(path)
        assert_one_sentence(bad, "model.safetensors", "damaged or cut short", "git checkout")


def test_altered_weights_do_not_match_their_card(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    sha = save_safetensors(path, tensors())
    write_card(tmp_path, {"name": "lite"})  # a card need not name a sha256
    load_safetensors(path)
    write_card(tmp_path, {"name": "lite", "sha256": {"model.safetensors": sha}})
    load_safetensors(path)
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    with pytest.raises(ValueError) as error:
        load_safetensors(path)
    assert_one_sentence(error, "model.safetensors", "altered", "git checkout")


def test_cards_come_back_and_bad_ones_are_named(tmp_path: Path) -> None:
    card = {"name": "lite", "steps": 3, "nested": {"wer": 0.1}, "voice": "é"}
    write_card(tmp_path / "deep" / "er", card)
    assert read_card(tmp_path / "deep" / "er") == card
    with pytest.raises(FileNotFoundError) as missing:
        read_card(tmp_path)
    assert_one_sentence(missing, "card.json", "trained model")
    for text, word in [('{"name": ', "not valid JSON"), ("[1, 2]", "not a JSON object")]:
        (tmp_path / "card.json").write_text(text)
        with pytest.raises(ValueError) as error:
            read_card(tmp_path)
        assert_one_sentence(error, "card.json", word, "git checkout")


# --- packed matrices -------------------------------------------------------------------------------
def packed_as_the_committed_weights(matrix: Tensor, bits: int) -> dict[str, Tensor]:
    """A matrix in 6 or 4 bits, as some committed weights have it."""
    groups = matrix.unflatten(1, (-1, GROUP if bits == 4 else matrix.shape[1]))
    largest = 2 ** (bits - 1) - 1
    scale = (groups.abs().amax(dim=2) / largest).clamp(min=1e-6).to(torch.float16)
    codes = (groups / scale.float().unsqueeze(2)).round().clamp(-largest, largest).flatten(1).to(torch.int32)
    if bits == 4:
        low, high = (codes + 8).unflatten(1, (-1, 2)).unbind(2)
        joined = low | high << 4
    else:
        a, b, c, d = (codes + 32).unflatten(1, (-1, 4)).unbind(2)
        joined = torch.stack([a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2], 2).flatten(1)
    return {"matrix": (joined & 255).to(torch.uint8), f"matrix.scale{bits}": scale}


def test_packed_weights_are_within_half_a_step() -> None:
    tensors = {"matrix": torch.randn(6, 64) * torch.logspace(-3, 3, 6)[:, None], "vector": torch.randn(5)}
    packed = pack_int(tensors)
    assert packed["matrix"].nbytes == 6 * 64 and packed["vector"].dtype == torch.float16
    again = unpack_int(packed)
    assert set(again) == set(tensors) and again["matrix"].shape == (6, 64)
    step = tensors["matrix"].abs().amax(dim=1, keepdim=True) / 127
    assert ((again["matrix"] - tensors["matrix"]).abs() <= 0.6 * step).all()
    assert torch.equal(unpack_int(tensors)["matrix"], tensors["matrix"])


@pytest.mark.parametrize(("bits", "largest"), [(6, 31), (4, 7)])
def test_weights_of_fewer_bits_are_still_read(bits: int, largest: int) -> None:
    codes = torch.arange(-largest, largest + 1).repeat(96)[: 3 * 96].view(3, 96).float()
    matrix = codes[:, torch.randperm(96)] * torch.tensor([[1.0], [0.5], [2.0]])
    matrix.unflatten(1, (-1, 32))[:, :, 0] = largest * torch.tensor([[1.0], [0.5], [2.0]])    # each group's largest
    packed = packed_as_the_committed_weights(matrix, bits)
    assert packed["matrix"].nbytes == 3 * 96 * bits // 8
    again = unpack_int(packed)
    assert set(again) == {"matrix"}
    torch.testing.assert_close(again["matrix"], matrix, rtol=1e-3, atol=1e-3)


def test_a_parameter_that_is_called_scale_is_not_the_scale_of_a_matrix() -> None:
    tensors = {"block.scale": torch.rand(4), "block.weight": torch.rand(4, 3)}
    again = unpack_int(pack_int(tensors))
    assert set(again) == set(tensors)
    torch.testing.assert_close(again["block.scale"].float(), tensors["block.scale"], atol=1e-3, rtol=1e-3)
