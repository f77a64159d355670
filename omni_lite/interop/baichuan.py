"""Baichuan's 7B checkpoints, read as LLaMA's: the same arithmetic under other names.

    self_attn.W_pack   queries, keys and values stacked: (3 * D, D)
    lm_head            Baichuan 2 scales each row to length 1 before use ("NormHead")

Baichuan's classes exist only as code beside its weights. transformers would run that code; this module does not.
The 7B sizes of both generations have rotary positions, as LLaMA has. The 13B sizes bias their attention by
distance (ALiBi), so they raise a ValueError.

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

from omni_lite.checkpoints import check_shapes, load_safetensors
from omni_lite.interop.hub import MAIN, download, load_pickle

REMEDY = "fetch the model again from its place on the Hugging Face hub"
FILES = ("config.json", "*.safetensors", "pytorch_model*.bin")
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
VOCAB_2 = 125_696                            # ids of Baichuan 2; the first generation has 64,000


def load_baichuan(source: str | Path, revision: str = MAIN) -> LlamaForCausalLM:
    """A Baichuan 7B or Baichuan 2 7B as a LLaMA in float32 and eval mode.

    source: its folder, or its id on the Hugging Face hub, as in `hub.download`
    """
    folder = Path(source) if Path(source).is_dir() else download(str(source), FILES, revision=revision)
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
    with no_init_weights():  # every weight is read below
        lm = LlamaForCausalLM(config)
    _fill(lm, folder, normed_head=has_normed_head(card))
    return lm.eval()


def has_normed_head(card: dict[str, Any]) -> bool:
    """Whether a config.json belongs to the second generation, whose config lacks a version."""
    architectures = card.get("architectures") or ["BaiChuanForCausalLM"]        # 2 writes Baichuan, 1 BaiChuan
    return (
        architectures[0] == "BaichuanForCausalLM" or "z_loss_weight" in card or card["vocab_size"] == VOCAB_2
    )


def _read_card(path: Path) -> dict[str, Any]:
    """config.json; a ValueError unless LLaMA has its sizes."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: {REMEDY}.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): {REMEDY}.") from error
    missing = [key for key in SIZES if not isinstance(card.get(key), int)]
    if missing:
        raise ValueError(f"{path} lacks {missing[0]}: {REMEDY}.")
    if not card.get("max_position_embeddings"):  # 13B configs have only model_max_length
        raise ValueError(f"{path} lacks max_position_embeddings: a Baichuan 13B (ALiBi) is not a LLaMA, take a 7B.")
    return card


def _fill(lm: LlamaForCausalLM, folder: Path, normed_head: bool) -> None:
    """Check every name and shape of the files, then copy their tensors into a LLaMA."""
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
