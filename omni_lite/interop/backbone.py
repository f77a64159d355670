"""OmniModel around a pretrained text model of Hugging Face."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from omni_lite.config import LITE, OmniConfig
from omni_lite.interop.baichuan import load_baichuan
from omni_lite.interop.hub import MAIN, split_revision
from omni_lite.model import OmniModel
from omni_lite.vocab import Vocab


def from_backbone(
    source: str | Path | PreTrainedModel, like: OmniConfig = LITE, **from_pretrained: Any
) -> OmniModel:
    """Give a pretrained text model an ASR adapter and audio streams: its weights in the trunk, new parts untrained.

    source: a causal language model, its folder, or its id on the Hugging Face hub, as in `hub.download`;
            a Baichuan is read as a LLaMA
    like:   the preset whose encoder, ASR adapter, codec and TTS adapter to take
    from_pretrained: passed on if `source` is a folder or an id, such as gguf_file="model.gguf"

    The model's (padded) vocabulary keeps its ids, and the special tokens follow it. Their embeddings start at the
    mean of the others. Until training, the first `vocab.text_base` columns of `text_logits(run(text_embed(ids)))` are
    the language model's logits, bit for bit. The model's base must take `inputs_embeds`, and its logits must be one
    linear layer on the base's output; others raise a ValueError.
    """
    lm = source if isinstance(source, PreTrainedModel) else load_lm(source, from_pretrained)
    embedding = cast(nn.Embedding, lm.get_input_embeddings()).weight
    head = cast(nn.Linear, lm.get_output_embeddings())
    vocab = Vocab(text_base=embedding.shape[0], codebook=like.vocab.codebook)
    card = lm.config.get_text_config(decoder=True).to_diff_dict()
    trunk = {key: value for key, value in card.items() if key not in _NOT_OF_THE_TRUNK}
    config = replace(
        like,
        name=f"{card['model_type']}-{like.name}",
        vocab=vocab,
        trunk=trunk,
        text_tied=head.weight is embedding,
        text_bias=head.bias is not None,
        text_scale=float(getattr(lm.get_input_embeddings(), "embed_scale", 1.0)),
        tts_before_norm=False,
        tts_reads_text=False,               # a large vocabulary's table would be larger than the TTS blocks
    )
    model = OmniModel(config)
    weights = lm.base_model.state_dict(keep_vars=True)
    model.trunk.load_state_dict({name: one for name, one in weights.items() if one is not embedding})
    with torch.no_grad():
        for ours, theirs in (
            (model.text_embed.weight, embedding),
            (model.text_head.get("weight"), head.weight),
            (model.text_head.get("bias"), head.bias),
        ):
            if ours is not None:
                ours[: vocab.text_base] = theirs
                ours[vocab.text_base :] = theirs.float().mean(dim=0)
    model.eval()
    _check_same_text(model, lm)
    return model


# Entries of a language model's config that describe its vocabulary or its files, not its blocks.
_NOT_OF_THE_TRUNK = {
    "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "use_cache",
    "transformers_version", "architectures", "dtype", "torch_dtype", "auto_map", "_name_or_path",
}  # fmt: skip


def load_lm(source: str | Path, options: dict[str, Any]) -> PreTrainedModel:
    """A causal language model of any kind, in float32.

    source: a folder, or an id on the Hugging Face hub;  options: of transformers' `from_pretrained`
    """
    if not Path(source).exists():
        source, revision = split_revision(str(source), options.get("revision", MAIN))
        options = options | {"revision": revision}
    if "gguf_file" not in options:
        card, _ = PreTrainedConfig.get_config_dict(source, **options)
        if card.get("model_type") == "baichuan":
            return load_baichuan(source, options.get("revision", MAIN))
    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)


@torch.no_grad()
def _check_same_text(model: OmniModel, lm: PreTrainedModel) -> None:
    """Raise a ValueError if the language model computes more around its base than `OmniModel` does."""
    if lm.dtype != torch.float32:
        return  # its own arithmetic is less precise than ours
    ids = torch.arange(min(16, model.config.vocab.text_base))[None]
    was_training = lm.training
    theirs = lm.eval()(ids.to(lm.device)).logits.cpu()
    lm.train(was_training)
    ours = model.text_logits(model.run(model.text_embed(ids)))[..., : theirs.shape[-1]]
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{model.config.trunk['model_type']} scales its embeddings or logits in a way that is not supported: "
            "choose another language model."
        )
