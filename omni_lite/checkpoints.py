"""Weight files: safetensors with packed integers, and the card beside them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from omni_lite.audio import atomic_write


def copy_tensors(module: nn.Module, tensors: Mapping[str, Any], path: str | Path, remedy: str) -> None:
    """Check every name and shape of a file's tensors, then copy them into a module."""
    own = module.state_dict()
    check_shapes(tensors, {name: tuple(tensor.shape) for name, tensor in own.items()}, path, remedy)
    for name, tensor in tensors.items():
        own[name].copy_(tensor)              # shares memory with the parameter; converts to its dtype


def check_shapes(
    tensors: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]], path: str | Path, remedy: str
) -> None:
    """Raise a ValueError that names the first key that is missing, is unknown or has a wrong shape."""
    for name in sorted(wanted.keys() - tensors.keys()):
        raise ValueError(f"{path} lacks {name}: {remedy}.")
    for name in sorted(map(str, tensors.keys() - wanted.keys())):
        raise ValueError(f"{path} has an unknown {name}: {remedy}.")
    for name, shape in wanted.items():
        found = tensors[name]
        if not isinstance(found, Tensor):
            raise ValueError(f"{path} holds {name} as {type(found).__name__} instead of a tensor: {remedy}.")
        if tuple(found.shape) != shape:
            raise ValueError(f"{path} holds {name} as {tuple(found.shape)}, the model wants {shape}: {remedy}.")


# --- this project's own weights --------------------------------------------------------------------
# The scales of a packed matrix have its name and one of these suffixes, by the bits of an entry.
SCALES = {8: ".scale", 6: ".scale6", 4: ".scale4"}
GROUP = 32                                   # 4-bit entries that share a scale


def pack_int(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store matrices as 8-bit integers with one float16 scale a row, and all other tensors as float16.

    `unpack_int` is exact to half a step; a step is 1/127 of the row's largest entry.
    """
    out = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            out[name] = tensor.to(torch.float16)
            continue
        scale = (tensor.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-6).to(torch.float16)
        out[name] = (tensor / scale.float()).round().clamp(-127, 127).to(torch.int8)
        out[name + SCALES[8]] = scale
    return out


def unpack_int(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack_int`; tensors that are not packed pass through."""
    parts = {8: Tensor.float, 6: _part_sixes, 4: _part_fours}
    out = {}
    for name, tensor in tensors.items():
        width = next((bits for bits, end in SCALES.items() if name + end in tensors), None)
        if width is not None:
            scale = tensors[name + SCALES[width]].float()
            codes = parts[width](tensor)
            out[name] = (codes.unflatten(1, (scale.shape[1], -1)) * scale.unsqueeze(2)).flatten(1)
        elif not any(name.endswith(end) and name.removesuffix(end) in tensors for end in SCALES.values()):
            out[name] = tensor
    return out


def _part_sixes(three: Tensor) -> Tensor:
    """The inverse of `_join_sixes`, as float32."""
    x, y, z = three.to(torch.int32).unflatten(1, (-1, 3)).unbind(2)
    four = torch.stack([x, x >> 6 | y << 2, y >> 4 | z << 4, z >> 2], 2) & 63
    return (four.flatten(1) - 32).float()


def _part_fours(byte: Tensor) -> Tensor:
    """The inverse of `_join_fours`, as float32."""
    return torch.stack([byte & 15, byte >> 4], 2).flatten(1).float() - 8


CARD = "card.json"
RESTORE = "restore it with `git checkout`, or train it again"


def save_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors atomically: a failed write leaves the old file as it was.

    tensors: no two may share memory: give a tied matrix one name
    returns: the sha256 of the new file. If card.json holds it (`{"sha256": {file name: ...}}`), `load_safetensors`
             rejects an altered file. Leave it out of the card while training overwrites the file.
    """
    path = Path(path)
    with atomic_write(path) as temporary:
        try:
            whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            save_file(whole, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:     # for example "no space left on device"
            raise OSError(str(error)) from error
        temporary.chmod(0o644)               # safetensors makes files that only the owner can read
        return sha256_of(temporary)


def load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU, and check its sha256 if the card.json beside it holds one."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}: {RESTORE}.")
    if (path.parent / CARD).exists():
        expected = read_card(path.parent).get("sha256", {}).get(path.name)
        if expected is not None:
            check_sha256(path, expected, RESTORE)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): {RESTORE}.") from error


def write_card(folder: str | Path, card: Mapping[str, Any]) -> None:
    """Write `card.json`, plain data that describes the weights beside it."""
    with atomic_write(Path(folder) / CARD) as temporary:
        temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: str | Path) -> dict[str, Any]:
    """Read the folder's `card.json`."""
    path = Path(folder) / CARD
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: give the folder of a trained model.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): {RESTORE}.") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path} is not a JSON object: {RESTORE}.")
    return card


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | Path, expected: str, remedy: str) -> None:
    """Raise a ValueError unless the file has this sha256."""
    found = sha256_of(path)
    if found != expected:
        raise ValueError(
            f"{path} was altered (its sha256 starts with {found[:12]} instead of {expected[:12]}): {remedy}."
        )
