"""The release's checkpoint and its way of answering, written once more from its layout alone.

Nothing here uses the library: shifted ids, one table, fused matrices, a loop over heads, float64.
The tests of `load_release` compare with it. Source: gpt-omni/mini-omni litgpt/model.py, litgpt/generate/base.py.
"""

import json
from pathlib import Path

import snac
import torch
import torch.nn.functional as F
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

FULL = dict(
    name="Qwen2-0.5B", n_layer=24, n_head=14, n_query_groups=2, head_size=64, n_embd=896, intermediate_size=4864,
    text_vocab_size=152_000, audio_vocab_size=4160, cat_audio_vocab_size=29_120, padded_vocab_size=181_120,
    whisper_adapter_dim=768, asr_adapter="llamamlp", post_adapter=False, post_adapter_layers=6, block_size=2048,
    rope_base=1_000_000, norm_eps=1e-6, bias=False, add_qkv_bias=True, lm_head_bias=False, tie_word_embeddings=True,
    norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", parallel_residual=False, shared_attention_norm=False,
    scale_embeddings=False, rotary_percentage=1, rope_condense_ratio=1, padding_multiple=512, vocab_size=50_254,
)  # fmt: skip
TINY = FULL | dict(
    name="tiny", n_layer=2, n_head=6, n_query_groups=2, head_size=8, n_embd=48, intermediate_size=64,
    text_vocab_size=136 + 64, audio_vocab_size=40 + 64, cat_audio_vocab_size=7 * 104, padded_vocab_size=200 + 7 * 104,
    whisper_adapter_dim=16, post_adapter_layers=2, block_size=512,
)  # fmt: skip
TASKS = ("A1A2", "A1T2", "A1T1", "T1A2", "T1T2")


# --- a checkpoint of random weights --------------------------------------------------------------------


def random_checkpoint(sizes: dict, seed: int = 0, sharp: float = 3) -> dict[str, Tensor]:
    """The state dict of lit_model.pth: matrices of norm-keeping size, so that every part matters.

    sharp: of queries and keys; at 3 greedy answers vary. 24 blocks of that amplify float32's rounding, in the
        release's own code as well, to 4e-4 of the logits: at full size take 1
    """
    generator = torch.Generator().manual_seed(seed)
    D, H, I = sizes["n_embd"], sizes["head_size"], sizes["intermediate_size"]  # noqa: E741
    fused = (sizes["n_head"] + 2 * sizes["n_query_groups"]) * H

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * columns**-0.5

    def vector(size: int, around: float) -> Tensor:
        return around + 0.1 * torch.randn(size, generator=generator)

    def block(name: str) -> dict[str, Tensor]:
        return {
            f"{name}.norm_1.weight": vector(D, 1),
            f"{name}.attn.attn.weight": sharp * matrix(fused, D),
            f"{name}.attn.attn.bias": vector(fused, 0),
            f"{name}.attn.proj.weight": matrix(D, sizes["n_head"] * H),
            f"{name}.norm_2.weight": vector(D, 1),
            f"{name}.mlp.fc_1.weight": matrix(I, D),
            f"{name}.mlp.fc_2.weight": matrix(I, D),
            f"{name}.mlp.proj.weight": matrix(D, I),
        }

    E = sizes["whisper_adapter_dim"]
    if sizes["asr_adapter"] == "mlp":
        out = {"whisper_adapter.weight": matrix(D, E), "whisper_adapter.bias": vector(D, 0)}
    else:
        out = {"whisper_adapter.fc_1.weight": matrix(I, E), "whisper_adapter.fc_2.weight": matrix(I, E)}
        out["whisper_adapter.proj.weight"] = matrix(D, I)
    table = matrix(sizes["padded_vocab_size"], D)
    out |= {"lm_head.weight": table, "transformer.wte.weight": table}
    for i in range(sizes["n_layer"]):
        out |= block(f"transformer.h.{i}")
    if sizes["post_adapter"]:
        for i in range(sizes["post_adapter_layers"]):
            out |= block(f"transformer.post_adapter.{i}")
    out["transformer.ln_f.weight"] = vector(D, 1)
    if sizes["post_adapter"]:
        out["transformer.post_adapter_audio_ln.weight"] = vector(D, 1)
        out["transformer.post_adapter_audio_lm_head.weight"] = matrix(sizes["cat_audio_vocab_size"], D)
    return out


def write_release(folder: Path, sizes: dict, tensors: dict[str, Tensor]) -> Path:
    """A release folder: weights, settings, and a tokenizer of words w0, w1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "lit_model.pth")
    (folder / "model_config.yaml").write_text(yaml.safe_dump(sizes))
    words = models.WordLevel({f"w{i}": i for i in range(sizes["text_vocab_size"] - 64)}, unk_token="w0")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_whisper(folder: Path, width: int = 16) -> Path:
    """small.pt as OpenAI's download is, but tiny: sizes and a state dict."""
    torch.manual_seed(0)
    ear, mouth = (1500, width, 2, 1), (11, 6, 8, 2, 1)                          # positions, width, heads, layers
    dims = ModelDimensions(80, *ear, *mouth)
    model = Whisper(dims)
    torch.nn.init.normal_(model.decoder.positional_embedding)
    torch.save({"dims": vars(dims), "model_state_dict": model.state_dict()}, folder / "small.pt")
    return folder / "small.pt"


def write_snac(folder: Path, codebook: int = 40) -> Path:
    """snac_24khz/ as the Hugging Face hub has it, but tiny: the same strides and rates, few channels."""
    config = dict(
        sampling_rate=24_000, encoder_dim=2, encoder_rates=[2, 4, 8, 8], decoder_dim=32, decoder_rates=[8, 8, 4, 2],
        attn_window_size=None, codebook_size=codebook, codebook_dim=8, vq_strides=[4, 2, 1], noise=True, depthwise=True,
    )  # fmt: skip
    torch.manual_seed(0)
    place = folder / "snac_24khz"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    torch.save(snac.SNAC(**config).state_dict(), place / "pytorch_model.bin")
    return place


# --- prompts -------------------------------------------------------------------------------------------


def shifted(sizes: dict, special: int, stream: int) -> int:
    """The id of special audio id 0, 1, ... (eoa, pad_a, input_a, answer_a) of a stream in the one table."""
    return sizes["text_vocab_size"] + stream * sizes["audio_vocab_size"] + sizes["audio_vocab_size"] - 64 + special


def question_rows(sizes: dict, task: str, text: list[int] | None = None, T: int | None = None) -> Tensor:
    """(8, S): seven rows of shifted audio ids, then the text row."""
    eoa, pad_a, input_a, answer_a = range(4)
    eot, pad_t, input_t, answer_t, asr = range(sizes["text_vocab_size"] - 64, sizes["text_vocab_size"] - 59)
    speaks = task.endswith("A2")
    if task.startswith("A1"):
        audio = [input_a] + [pad_a] * T + [eoa, answer_a if speaks else pad_a]
        words = [input_t] + [pad_t] * T + [eot, asr if task == "A1T1" else answer_t]
    else:
        audio = [pad_a] * (len(text) + 2) + [answer_a if speaks else pad_a]
        words = [input_t, *text, eot, answer_t]
    return torch.tensor([[shifted(sizes, one, i) for one in audio] for i in range(7)] + [words])


# --- the model in float64 ------------------------------------------------------------------------------


class Reference:
    """The released model, matrix by matrix. Remembers keys and values until `forget`."""

    def __init__(self, sizes: dict, tensors: dict[str, Tensor]) -> None:
        self.sizes = sizes
        self.w = {name: tensor.double() for name, tensor in tensors.items() if name != "lm_head.weight"}
        self.forget()

    def forget(self) -> None:
        self.seen: dict[str, list[Tensor]] = {}

    def norm(self, x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + self.sizes["norm_eps"]).sqrt() * self.w[name]

    def swiglu(self, x: Tensor, name: str) -> Tensor:
        return (F.silu(x @ self.w[f"{name}.fc_1.weight"].T) * (x @ self.w[f"{name}.fc_2.weight"].T)) @ self.w[
            f"{name}.proj.weight"].T

    def turn(self, x: Tensor, first: int) -> Tensor:
        """Rotary positions: (B, S, H), the first of them at position `first`."""
        H = x.shape[-1]
        speed = float(self.sizes["rope_base"]) ** -(torch.arange(0, H, 2, dtype=torch.float64) / H)
        angle = torch.arange(first, first + x.shape[1], dtype=torch.float64)[:, None] * speed
        one, two = x[..., : H // 2], x[..., H // 2 :]
        return torch.cat([one * angle.cos() - two * angle.sin(), two * angle.cos() + one * angle.sin()], dim=-1)

    def attention(self, x: Tensor, name: str) -> Tensor:
        """Head after head; the rows of the fused matrix: queries of group 0, its key, its value, group 1, ..."""
        heads, groups, H = (self.sizes[key] for key in ("n_head", "n_query_groups", "head_size"))
        fused = x @ self.w[f"{name}.attn.weight"].T + self.w[f"{name}.attn.bias"]
        past = self.seen[f"{name}.0"][0].shape[1] if f"{name}.0" in self.seen else 0
        S, queries, out = x.shape[1], heads // groups, []
        visible = torch.ones(S, past + S, dtype=torch.bool).tril(past)
        for group in range(groups):
            first = group * (queries + 2)
            q_k_v = [fused[..., (first + j) * H : (first + j + 1) * H] for j in range(queries + 2)]
            k, v = self.turn(q_k_v[queries], past), q_k_v[queries + 1]
            if past:
                k, v = (torch.cat(pair, dim=1) for pair in zip(self.seen[f"{name}.{group}"], (k, v), strict=True))
            self.seen[f"{name}.{group}"] = [k, v]
            for j in range(queries):
                score = self.turn(q_k_v[j], past) @ k.transpose(1, 2) / H**0.5
                out.append(score.masked_fill(~visible, -torch.inf).softmax(-1) @ v)
        return torch.cat(out, dim=-1) @ self.w[f"{name}.proj.weight"].T

    def block(self, x: Tensor, name: str) -> Tensor:
        x = x + self.attention(self.norm(x, f"{name}.norm_1.weight"), f"{name}.attn")
        return x + self.swiglu(self.norm(x, f"{name}.norm_2.weight"), f"{name}.mlp")

    def hear(self, features: Tensor) -> Tensor:
        if self.sizes["asr_adapter"] == "mlp":
            return features @ self.w["whisper_adapter.weight"].T + self.w["whisper_adapter.bias"]
        return self.swiglu(features, "whisper_adapter")

    def __call__(self, rows: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """rows (B, 8, S) of shifted ids, features (B, T, E) -> text (B, S, V_text), audio (B, 7, S, V_audio)"""
        table, V_t = self.w["transformer.wte.weight"], self.sizes["text_vocab_size"]
        x = table[rows]                                                         # (B, 8, S, D)
        if features is not None:
            heard = self.hear(features.double())
            x[:, :7, 1 : 1 + heard.shape[1]] = heard[:, None]
        x = x.sum(dim=1) / 8
        for i in range(self.sizes["n_layer"]):
            x = self.block(x, f"transformer.h.{i}")
        text = self.norm(x, "transformer.ln_f.weight") @ table[:V_t].T
        if not self.sizes["post_adapter"]:
            audio = self.norm(x, "transformer.ln_f.weight") @ table[V_t:].T
        else:
            for i in range(self.sizes["post_adapter_layers"]):
                x = self.block(x, f"transformer.post_adapter.{i}")
            x = self.norm(x, "transformer.post_adapter_audio_ln.weight")
            audio = x @ self.w["transformer.post_adapter_audio_lm_head.weight"].T
        return text, audio.unflatten(-1, (7, self.sizes["audio_vocab_size"])).transpose(1, 2)


# --- how the release answers ----------------------------------------------------------------------------


def answer_as_released(model: Reference, task: str, rows: list[Tensor], features: Tensor | None, steps: int) -> Tensor:
    """(8, up to `steps`) ids as the release's lists hold them: audio before the shift, then the text row.

    rows: one (8, S) question; or two for batch-parallel decoding, of which the first speaks and the second writes
    Greedy. The release stops without listing the step: where stream 6 says eoa, or, in a task that only
    writes, where the text says eot. Neither is looked for in the first step.
    """
    sizes, B, speaks = model.sizes, len(rows), task.endswith("A2")
    eoa, eot = sizes["audio_vocab_size"] - 64, sizes["text_vocab_size"] - 64
    pad_a, pad_t = eoa + 1, eot + 1
    model.forget()
    text, audio = model(torch.stack(rows), None if features is None else features.expand(B, -1, -1))
    said, text_ended = [], False
    for step in range(steps):
        text_id = int(text[-1, -1].argmax())
        audio_ids = audio[0, :, -1].argmax(-1).tolist() if speaks else [pad_a] * 7
        if text_ended:
            text_id = pad_t
        if step and (audio_ids[6] == eoa if speaks else text_id == eot):
            break
        text_ended = text_ended or (step > 0 and text_id == eot)
        said.append([*audio_ids, text_id])
        following = torch.tensor([[*audio_ids, text_id], [pad_a] * 7 + [text_id]][:B])
        following[:, :7] += sizes["text_vocab_size"] + torch.arange(7) * sizes["audio_vocab_size"]
        text, audio = model(following[..., None])
    return torch.tensor(said).T
