"""The released Mini-Omni checkpoint, read into an `OmniModel`.

A release folder holds    lit_model.pth  model_config.yaml  tokenizer.json
and can also hold         small.pt                        Whisper's own download
                          snac_24khz/config.json, .../pytorch_model.bin          the codec

The tensors of lit_model.pth, all matrices as (out, in):

    transformer.wte.weight    (V, D)  one table: text ids, then seven bands of audio ids
    lm_head.weight            (V, D)  the same table again: the heads are tied to it
    transformer.h.0.          norm_1  attn.attn  attn.proj  norm_2  mlp.fc_1  mlp.fc_2  mlp.proj
    transformer.ln_f.weight   (D,)
    whisper_adapter.          fc_1  fc_2  proj, or weight and bias of one Linear
    transformer.post_adapter.0.   as transformer.h.0., only with `post_adapter: true`, and then also
    transformer.post_adapter_audio_ln.weight, transformer.post_adapter_audio_lm_head.weight

Source: gpt-omni/mini-omni litgpt/model.py::GPT, litgpt/config.py::Config, inference.py::load_model
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import yaml
from tokenizers import Tokenizer
from torch import Tensor
from transformers.initialization import no_init_weights

from omni_lite.checkpoints import check_shapes
from omni_lite.config import MINI_OMNI, OmniConfig
from omni_lite.interop.hub import download, load_pickle, one_line
from omni_lite.model import OmniModel
from omni_lite.vocab import NUM_SPECIALS, NUM_STREAMS, Vocab

RELEASE_ID = "gpt-omni/mini-omni"            # on the Hugging Face hub; "@commit" after it fixes the version
WEIGHTS_FILE = "lit_model.pth"
CONFIG_FILE = "model_config.yaml"
TOKENIZER_FILE = "tokenizer.json"
SNAC_FOLDER = "snac_24khz"
REMEDY = f"fetch the release again, {RELEASE_ID} on the Hugging Face hub"
MAX_SPARE_IDS = 1024                         # ids of a padded vocabulary without a token; Qwen2 has 290


def release_folder(source: str | Path) -> Path:
    """A folder as it is; an id on the Hugging Face hub, as in `hub.download`, becomes the folder of its download."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", str(source)):
        raise FileNotFoundError(
            f"{source} is not a folder: give one that holds {WEIGHTS_FILE}, {CONFIG_FILE} and {TOKENIZER_FILE}, "
            f"or an id such as {RELEASE_ID}."
        )
    return download(str(source), [WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE])


# --- model_config.yaml ------------------------------------------------------------------------------


# The release's defaults; sizes that are not here must be in the file.
DEFAULTS: dict[str, Any] = {
    "n_query_groups": None,                  # as many as heads
    "head_size": None,                       # n_embd / n_head
    "add_qkv_bias": None,                    # as `bias`
    "norm_eps": 1e-5,
    "rope_base": 10_000,
    "block_size": 4096,
    "text_vocab_size": 152_000,
    "audio_vocab_size": 4160,
    "whisper_adapter_dim": 768,
    "asr_adapter": "llamamlp",
    "post_adapter": False,
    "post_adapter_layers": 6,
    "bias": True,
    "lm_head_bias": False,
    "norm_class_name": "LayerNorm",
    "mlp_class_name": "GptNeoxMLP",
    "parallel_residual": True,
    "shared_attention_norm": False,
    "scale_embeddings": False,
    "rotary_percentage": 0.25,
    "rope_condense_ratio": 1,
}
# Qwen2's blocks in litgpt's words; other choices cannot be read.
QWEN2: dict[str, Any] = {
    "bias": False,
    "add_qkv_bias": True,
    "lm_head_bias": False,
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "parallel_residual": False,
    "shared_attention_norm": False,
    "scale_embeddings": False,
    "rotary_percentage": 1,
    "rope_condense_ratio": 1,
}
ADAPTERS = {"llamamlp": "swiglu", "mlp": "linear"}       # the release's names -> ours


def read_config(folder: Path) -> OmniConfig:
    """model_config.yaml as an `OmniConfig`; the released sizes give the `mini-omni` preset."""
    path = folder / CONFIG_FILE
    given = _read_yaml(path)

    def size(key: str) -> int:
        value = given.get(key, DEFAULTS.get(key))
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{path} lacks the size {key}, or it is not a positive number: {REMEDY}.")
        return value

    for key, wanted in QWEN2.items():
        value = given.get(key, DEFAULTS[key])
        value = given.get("bias", DEFAULTS["bias"]) if key == "add_qkv_bias" and value is None else value
        if value != wanted:
            raise ValueError(f"{path} says {key}: {value}, but only {wanted} (Qwen2) can be read: {REMEDY}.")
    width, heads = size("n_embd"), size("n_head")
    if width % heads or (given.get("head_size") or width // heads) != width // heads:
        raise ValueError(f"{path} says head_size: {given.get('head_size')}, but only n_embd / n_head can be read.")
    groups = size("n_query_groups") if given.get("n_query_groups") else heads
    if heads % groups:
        raise ValueError(f"{path} says n_query_groups: {groups}, which does not divide n_head: {REMEDY}.")
    adapter = given.get("asr_adapter", DEFAULTS["asr_adapter"])
    if adapter not in ADAPTERS:
        raise ValueError(f"{path} says asr_adapter: {adapter}, but it is one of {', '.join(ADAPTERS)}: {REMEDY}.")
    text_base, codebook = size("text_vocab_size") - NUM_SPECIALS, size("audio_vocab_size") - NUM_SPECIALS
    if text_base < 1 or codebook < 1:
        raise ValueError(f"{path} leaves no vocabulary beside {NUM_SPECIALS} special ids: {REMEDY}.")
    ear = replace(
        MINI_OMNI.ear, width=size("whisper_adapter_dim"), adapter=ADAPTERS[adapter], hidden=size("intermediate_size")
    )
    post_adapter = bool(given.get("post_adapter", False))
    return replace(
        MINI_OMNI,
        vocab=Vocab(text_base, codebook),
        ear=ear,
        codec=replace(MINI_OMNI.codec, codebook=codebook),
        trunk=dict(
            model_type="qwen2",
            hidden_size=width,
            intermediate_size=size("intermediate_size"),
            num_hidden_layers=size("n_layer"),
            num_attention_heads=heads,
            num_key_value_heads=groups,
            max_position_embeddings=size("block_size"),
            rope_theta=float(size("rope_base")),
            rms_norm_eps=float(given.get("norm_eps", DEFAULTS["norm_eps"])),
        ),
        tts_blocks=size("post_adapter_layers") if post_adapter else 0,
        tts_before_norm=post_adapter,
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: {REMEDY}.")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML ({one_line(error)}): {REMEDY}.") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds no settings: {REMEDY}.")
    return given


# --- lit_model.pth ------------------------------------------------------------------------------------


TABLES = ("lm_head.weight", "transformer.wte.weight")
BLOCK = {                                    # the release's name within a block -> ours, which it concatenates
    "norm_1.weight": ["input_layernorm.weight"],
    "attn.attn.weight": [f"self_attn.{one}_proj.weight" for one in "qkv"],
    "attn.attn.bias": [f"self_attn.{one}_proj.bias" for one in "qkv"],
    "attn.proj.weight": ["self_attn.o_proj.weight"],
    "norm_2.weight": ["post_attention_layernorm.weight"],
    "mlp.fc_1.weight": ["mlp.gate_proj.weight"],
    "mlp.fc_2.weight": ["mlp.up_proj.weight"],
    "mlp.proj.weight": ["mlp.down_proj.weight"],
}


def names(config: OmniConfig) -> dict[str, list[str]]:
    """Every name of the release -> the names in `OmniModel` that this tensor concatenates."""
    out = {table: ["text_embed.weight", "audio_embed.weight"] for table in TABLES}
    out["transformer.ln_f.weight"] = ["trunk.text_norm.weight" if config.tts_before_norm else "trunk.norm.weight"]
    blocks = {f"transformer.h.{i}": f"trunk.layers.{i}" for i in range(config.trunk["num_hidden_layers"])}
    if config.tts_blocks:
        blocks |= {f"transformer.post_adapter.{i}": f"tts_adapter.blocks.{i}" for i in range(config.tts_blocks)}
        out["transformer.post_adapter_audio_ln.weight"] = ["tts_adapter.norm.weight"]
        out["transformer.post_adapter_audio_lm_head.weight"] = ["tts_adapter.head.weight"]
    for theirs, ours in blocks.items():
        out |= {f"{theirs}.{name}": [f"{ours}.{one}" for one in parts] for name, parts in BLOCK.items()}
    if config.ear.adapter == "linear":
        out |= {f"whisper_adapter.{kind}": [f"asr_adapter.proj.{kind}"] for kind in ("weight", "bias")}
    else:
        out |= {f"whisper_adapter.{one}.weight": [f"asr_adapter.{one}.weight"] for one in ("fc_1", "fc_2", "proj")}
    return out


def read_weights(folder: Path, config: OmniConfig, own: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The released tensors under our names, one at a time, after all names and shapes have been checked.

    own: the state dict to fill, for its shapes
    """
    renamed = _check(folder, config, own)
    read = _Reader(folder / WEIGHTS_FILE, renamed, config)
    return ((name, read(name)) for ours in renamed.values() for name in ours)


def weight_reader(folder: Path, config: OmniConfig, own: Mapping[str, Tensor]) -> Callable[[str], Tensor]:
    """A function from our name to the released tensor; names and shapes have been checked as in `read_weights`."""
    return _Reader(folder / WEIGHTS_FILE, _check(folder, config, own), config)


def _check(folder: Path, config: OmniConfig, own: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """`names` without the head, which repeats the table; a ValueError if a name or shape in the file is wrong."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: {REMEDY}.")
    found, renamed = load_pickle(path), names(config)
    wanted = {
        theirs: (sum(own[one].shape[0] for one in ours), *own[ours[0]].shape[1:]) for theirs, ours in renamed.items()
    }
    check_shapes(found, wanted, path, REMEDY)
    head, table = (found[name] for name in TABLES)
    if head.data_ptr() != table.data_ptr() and not head.equal(table):
        raise ValueError(f"{path} holds another {TABLES[0]} than {TABLES[1]}, but they should be one table: {REMEDY}.")
    del renamed[TABLES[0]]
    return renamed


class _Reader:
    """Our name -> tensor. Each block maps the file again, which releases the bytes of the block before.

    So the peak of memory is one model, not two.
    """

    def __init__(self, path: Path, renamed: Mapping[str, list[str]], config: OmniConfig) -> None:
        self.path, self.config, self.part = path, config, ""
        self.place = {name: (theirs, i) for theirs, ours in renamed.items() for i, name in enumerate(ours)}
        self.mapped, self.found = is_zipfile(path), load_pickle(path)

    def __call__(self, name: str) -> Tensor:
        theirs, i = self.place[name]
        part = ".".join(theirs.split(".")[:3])                             # such as transformer.h.7
        if self.mapped and part != self.part:
            self.found, self.part = load_pickle(self.path), part
        return _split(theirs, self.found[theirs], self.config)[i]


def _split(name: str, tensor: Tensor, config: OmniConfig) -> list[Tensor]:
    """Split one released tensor into the tensors that it concatenates."""
    if name in TABLES:
        vocab = config.vocab
        return list(tensor.split([vocab.text_size, NUM_STREAMS * vocab.audio_size]))
    if ".attn.attn." in name:
        return split_groups(tensor, config.trunk["num_attention_heads"], config.trunk["num_key_value_heads"])
    return [tensor]


def split_groups(fused: Tensor, heads: int, groups: int) -> list[Tensor]:
    """Split litgpt's one matrix, which is ordered by query groups, into queries, keys and values.

    fused:   ((heads + 2 * groups) * H, D), or without D for the biases; H rows make one head
    returns: (heads * H, D), (groups * H, D), (groups * H, D)

    4 heads in 2 groups, each letter H rows:    q0 q1 k0 v0  q2 q3 k1 v1  ->  q0 q1 q2 q3,  k0 k1,  v0 v1

    Source: gpt-omni/mini-omni litgpt/model.py::CausalSelfAttention.forward
    """
    by_group = fused.unflatten(0, (groups, heads // groups + 2, -1))        # (groups, queries + 2, H, D)
    q, k, v = by_group[:, :-2], by_group[:, -2:-1], by_group[:, -1:]
    return [one.flatten(0, 2) for one in (q, k, v)]


# --- tokenizer.json -----------------------------------------------------------------------------------


def read_tokenizer(folder: Path, vocab: Vocab) -> Tokenizer:
    """The release's tokenizer; a ValueError if its ids do not fit the model."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: {REMEDY}.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:               # the Rust side raises bare Exception
        raise ValueError(f"{path} is not a tokenizer ({one_line(error)}): {REMEDY}.") from error
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    highest = max(ids, default=-1)
    if highest >= vocab.text_base or vocab.text_base - highest - 1 > MAX_SPARE_IDS:
        raise ValueError(
            f"{path} has ids up to {highest}, but the model has text ids up to {vocab.text_base - 1}, so it is "
            f"another model's tokenizer: {REMEDY}."
        )
    return tokenizer


# --- the whole model ------------------------------------------------------------------------------------


def load_release(source: str | Path = RELEASE_ID) -> OmniModel:
    """The released gpt-omni/mini-omni checkpoint, or one in its layout: the `mini-omni` preset.

    source: a folder with lit_model.pth and model_config.yaml, or an id on the Hugging Face hub

    The weights become float32, and the model is in eval mode. `generate` with `delay=ReleaseDelay` gives exactly
    the ids that the released code gives with these weights.
    raises: OSError or ValueError of one sentence, before anything is loaded
    """
    folder = release_folder(source)
    config = read_config(folder)
    if (folder / TOKENIZER_FILE).is_file():
        read_tokenizer(folder, config.vocab)
    with no_init_weights():  # every weight is read below
        model = OmniModel(config)
    own = model.state_dict()
    for name, tensor in read_weights(folder, config, own):
        own[name].copy_(tensor)
    return model.eval()
