"""Baichuan's checkpoints as LLaMA's: the same arithmetic under other names.

    self_attn.W_pack   queries, keys and values stacked: (3 * D, D)
    lm_head            Baichuan 2 scales each row to length 1 before it is used ("NormHead")

Baichuan's classes exist only as code that lies beside its weights, and transformers would run that code.
Here none is run. The 7B sizes of both generations rotate positions and so are LLaMA's; the 13B ones bias
their attention by distance (ALiBi) and are refused.

Sources: baichuan-inc/Baichuan-7B models/modeling_baichuan.py; Baichuan 2, arXiv 2309.10305, NormHead.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.initialization import no_init_weights
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from omni_lite.weights import check_shapes, download, load_pickle, load_safetensors

REMEDY = "fetch the model again from its place on the Hugging Face hub"
FILES = ("config.json", "*.safetensors", "pytorch_model*.bin")
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
VOCAB_2 = 125_696                            # ids of Baichuan 2; the first generation has 64,000


def load_baichuan(source: str | Path) -> LlamaForCausalLM:
    """A Baichuan 7B or Baichuan 2 7B, its folder or hub id, as a LLaMA in float32 and eval mode."""
    folder = Path(source) if Path(source).is_dir() else download(str(source), FILES)
    path = folder / "config.json"
    card = _read_card(path)
    config = LlamaConfig(
        **{key: card[key] for key in SIZES},
        max_position_embeddings=card["max_position_embeddings"],
        rms_norm_eps=card.get("rms_norm_eps", 1e-6),
        hidden_act=card.get("hidden_act", "silu"),
        tie_word_embeddings=False,
        pad_token_id=None,
    )
    config._attn_implementation = "sdpa"
    with no_init_weights():  # every weight is about to be read
        lm = LlamaForCausalLM(config)
    _fill(lm, folder, normed_head=has_normed_head(card))
    return lm.eval()


def has_normed_head(card: dict[str, Any]) -> bool:
    """Whether a config.json is of the second generation, which says so only in passing."""
    architectures = card.get("architectures") or ["BaiChuanForCausalLM"]        # 2 writes Baichuan, 1 BaiChuan
    return (
        architectures[0] == "BaichuanForCausalLM" or "z_loss_weight" in card or card["vocab_size"] == VOCAB_2
    )


def _read_card(path: Path) -> dict[str, Any]:
    """config.json, if it describes a size that is LLaMA's."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: {REMEDY}.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): {REMEDY}.") from error
    missing = [key for key in SIZES if not isinstance(card.get(key), int)]
    if missing:
        raise ValueError(f"{path} lacks {missing[0]}: {REMEDY}.")
    if not card.get("max_position_embeddings"):  # its 13B cards have model_max_length alone
        raise ValueError(f"{path} has no max_position_embeddings: a Baichuan 13B (ALiBi) is no LLaMA, take a 7B.")
    return card


def _fill(lm: LlamaForCausalLM, folder: Path, normed_head: bool) -> None:
    """Copy the files' tensors into a LLaMA, after every name and shape was found to be right."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_safetensors(file)
    for file in [] if found else sorted(folder.glob("pytorch_model*.bin")):
        found |= load_pickle(file)
    found = {name: tensor for name, tensor in found.items() if not name.endswith("rotary_emb.inv_freq")}
    own = lm.state_dict()
    wanted = {}
    for name, tensor in own.items():
        rows, *columns = tensor.shape
        if name.endswith("q_proj.weight"):
            wanted[name.replace("q_proj", "W_pack")] = (3 * rows, *columns)
        elif not name.endswith(("k_proj.weight", "v_proj.weight")):
            wanted[name] = (rows, *columns)
    check_shapes(found, wanted, folder, REMEDY)
    for name, tensor in found.items():
        parts: tuple[Tensor, ...] = tensor.chunk(3) if "W_pack" in name else (tensor,)
        for letter, part in zip("qkv", parts, strict=False):
            own[name.replace("W_pack", f"{letter}_proj")].copy_(part)
    if normed_head:
        with torch.no_grad():
            lm.lm_head.weight.copy_(F.normalize(lm.lm_head.weight))
