"""Baichuan's two 7B layouts as LLaMAs, against their arithmetic written out in float64."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from omni_lite.folder import load_model, save_model
from omni_lite.interop.backbone import from_backbone
from omni_lite.interop.baichuan import load_baichuan
from tests import assert_one_sentence
from tests.test_model import TINY

D, HEADS, LAYERS, INNER, IDS = 32, 4, 2, 48, 40
H = D // HEADS
CARD_1 = dict(
    model_type="baichuan", architectures=["BaiChuanForCausalLM"], vocab_size=IDS, hidden_size=D,
    intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS, hidden_act="silu",
    rms_norm_eps=1e-6, max_position_embeddings=64, tie_word_embeddings=False, pad_token_id=0,
    auto_map={"AutoModelForCausalLM": "modeling_baichuan.BaiChuanForCausalLM"},
)  # fmt: skip
CARD_2 = CARD_1 | dict(architectures=["BaichuanForCausalLM"], model_max_length=64, z_loss_weight=0)


def checkpoint(ids: int = IDS) -> dict[str, Tensor]:
    """Random weights in the layout of pytorch_model.bin, the saved rotation speeds included."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    out = {"model.embed_tokens.weight": draw(ids, D), "lm_head.weight": 3 * draw(ids, D)}
    for i in range(LAYERS):
        out |= {
            f"model.layers.{i}.self_attn.W_pack.weight": 2 * draw(3 * D, D),
            f"model.layers.{i}.self_attn.o_proj.weight": draw(D, D),
            f"model.layers.{i}.self_attn.rotary_emb.inv_freq": 10_000 ** -(torch.arange(0, H, 2) / H),
            f"model.layers.{i}.mlp.gate_proj.weight": draw(INNER, D),
            f"model.layers.{i}.mlp.up_proj.weight": draw(INNER, D),
            f"model.layers.{i}.mlp.down_proj.weight": draw(D, INNER),
            f"model.layers.{i}.input_layernorm.weight": 1 + draw(D),
            f"model.layers.{i}.post_attention_layernorm.weight": 1 + draw(D),
        }
    return out | {"model.norm.weight": 1 + draw(D)}


def write(folder: Path, card: dict, tensors: dict[str, Tensor], form: str = "one file") -> Path:
    (folder / "config.json").write_text(json.dumps(card))
    names = sorted(tensors)
    if form == "one file":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif form == "two files":
        for part, some in ((1, names[::2]), (2, names[1::2])):
            torch.save({name: tensors[name] for name in some}, folder / f"pytorch_model-0000{part}-of-00002.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder


def logits(w: dict[str, Tensor], ids: list[int], normed_head: bool) -> Tensor:
    """(S, V) in float64, head by head."""
    w = {name: tensor.double() for name, tensor in w.items()}
    S = len(ids)
    angle = torch.arange(S)[:, None] * 10_000.0 ** -(torch.arange(0, H, 2, dtype=torch.float64) / H)
    future = torch.ones(S, S, dtype=torch.bool).triu(1)

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[name]

    def turn(x: Tensor) -> Tensor:
        one, two = x[:, : H // 2], x[:, H // 2 :]
        return torch.cat([one * angle.cos() - two * angle.sin(), two * angle.cos() + one * angle.sin()], dim=1)

    x = w["model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        y = norm(x, f"{layer}.input_layernorm.weight")
        packed, heads = y @ w[f"{layer}.self_attn.W_pack.weight"].T, []
        for h in range(HEADS):
            q, k, v = (packed[:, one * D + h * H : one * D + (h + 1) * H] for one in range(3))
            score = (turn(q) @ turn(k).T / H**0.5).masked_fill(future, -torch.inf)
            heads.append(score.softmax(-1) @ v)
        x = x + torch.cat(heads, dim=1) @ w[f"{layer}.self_attn.o_proj.weight"].T
        y = norm(x, f"{layer}.post_attention_layernorm.weight")
        gate, up = (y @ w[f"{layer}.mlp.{one}_proj.weight"].T for one in ("gate", "up"))
        x = x + (F.silu(gate) * up) @ w[f"{layer}.mlp.down_proj.weight"].T
    head = w["lm_head.weight"]
    return norm(x, "model.norm.weight") @ (head / head.norm(dim=1, keepdim=True) if normed_head else head).T


@pytest.mark.parametrize("form", ["one file", "two files", "safetensors"])
@pytest.mark.parametrize("card, normed_head", [(CARD_1, False), (CARD_2, True)])
def test_both_layouts_equal_float64(tmp_path, card, normed_head, form):
    tensors, ids = checkpoint(), [3, 1, 4, 1, 5, 9, 2, 6]
    lm = load_baichuan(write(tmp_path, card, tensors, form))
    wanted = logits(tensors, ids, normed_head)
    with torch.no_grad():
        found = lm(torch.tensor([ids])).logits[0]
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("card", [CARD_1, CARD_2])
@torch.no_grad()
def test_baichuan_is_a_backbone(tmp_path, card):
    folder = write(tmp_path, card, checkpoint())
    (folder / "modeling_baichuan.py").write_text("raise SystemExit('the code beside the weights was run')")
    lm = load_baichuan(folder)
    assert type(lm) is LlamaForCausalLM and not lm.training
    model = from_backbone(str(folder), like=TINY)
    assert model.config.trunk["model_type"] == "llama" and model.config.vocab.text_base == IDS
    ids = torch.arange(12)[None]
    assert torch.equal(model.text_logits(model.run(model.text_embed(ids)))[..., :IDS], lm(ids).logits)
    save_model(tmp_path / "ours", model)
    assert load_model(tmp_path / "ours").config == model.config


def test_the_second_generation_is_told_by_any_of_its_marks(tmp_path):
    plain = {key: value for key, value in CARD_1.items() if key != "architectures"}
    tensors = checkpoint()
    for card, normed in ((plain, False), (plain | {"z_loss_weight": 0}, True), (CARD_2, True)):
        head = load_baichuan(write(tmp_path, card, tensors)).lm_head.weight
        assert torch.allclose(head.norm(dim=1), torch.ones(IDS)) == normed


@pytest.mark.parametrize("how, words", [
    ("no pack", ["lacks model.layers.1.self_attn.W_pack.weight"]),
    ("separate", ["unknown model.layers.0.self_attn.q_proj.weight"]),
    ("narrow", ["model.layers.0.self_attn.W_pack.weight as (64, 32), the model wants (96, 32)"]),
    ("13B", ["config.json", "max_position_embeddings", "ALiBi"]),
    ("no size", ["config.json", "lacks num_attention_heads"]),
    ("no JSON", ["config.json", "not valid JSON"]),
    ("no weights", ["lacks lm_head.weight"]),
])
def test_what_is_wrong_is_one_sentence(tmp_path, how, words):
    tensors, card = checkpoint(), dict(CARD_1)
    if how == "no pack":
        del tensors["model.layers.1.self_attn.W_pack.weight"]
    elif how == "separate":
        tensors["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(D, D)
    elif how == "narrow":
        tensors["model.layers.0.self_attn.W_pack.weight"] = torch.zeros(2 * D, D)
    elif how == "13B":
        del card["max_position_embeddings"]
    elif how == "no size":
        del card["num_attention_heads"]
    write(tmp_path, card, tensors)
    if how == "no JSON":
        (tmp_path / "config.json").write_text("{")
    elif how == "no weights":
        (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises((ValueError, OSError)) as error:
        load_baichuan(tmp_path)
    assert_one_sentence(error, *words)


def test_an_id_is_no_folder(monkeypatch):
    import huggingface_hub

    def offline(name: str, revision: str, allow_patterns: list[str]) -> str:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(OSError) as error:
        load_baichuan("baichuan-inc/Baichuan2-7B-Base")
    assert_one_sentence(error, "baichuan-inc/Baichuan2-7B-Base", "Name or service not known", "online once")
