"""OmniModel: a Hugging Face decoder that reads eight rows and writes eight rows.

    8 rows of ids --embed--> x --trunk--> hidden --tied head--> text logits
    features --ASR adapter--^               `--TTS adapter, audio head--> 7 audio logits

Shapes: letter legend in vocab.py. Sources: arXiv 2408.16725, sections 3.1 to 3.3;
gpt-omni/mini-omni litgpt/model.py::GPT.forward.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.configuration_utils import PreTrainedConfig
from transformers.initialization import no_init_weights
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModel, AutoModelForCausalLM
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from omni_lite import release
from omni_lite.baichuan import load_baichuan
from omni_lite.config import LITE, OmniConfig
from omni_lite.hear import ASRAdapter
from omni_lite.vocab import NUM_ROWS, NUM_SPECIALS, NUM_STREAMS, Vocab
from omni_lite.weights import atomic_write, load_safetensors, save_safetensors, unpack_int

WORD_SPREAD = 0.06                           # of what is heard around an embedding, in parts of its squared length
SHARPER = 2.0                                # how much less a second word is mixed in than it is likely
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass
class Cache:
    """Keys and values of the steps seen so far: of the trunk, and of the TTS blocks where there are any.

    The two may hold different batches: in batch-parallel decoding the trunk steps two rows, and only
    row 0 speaks. `len(cache)` is the number of steps in the trunk's.
    """

    trunk: DynamicCache
    tts: DynamicCache | None

    def __len__(self) -> int:
        return self.trunk.get_seq_length()

    def expand(self, batch: int) -> None:
        """Copy the trunk's one row to `batch` rows: one prefill, several continuations."""
        self.trunk.batch_repeat_interleave(batch)

    def keep(self, row: int) -> None:
        """Drop all of the trunk's rows but one."""
        self.trunk.batch_select_indices(torch.tensor([row]))


class TTSAdapter(nn.Module):
    """The paper's TTS adapter: transformer blocks on the trunk's output, with their own norm and audio head.

    The blocks are always Qwen2's, of the trunk's width; what another trunk's config lacks gets a default. Each
    begins as nothing: what it adds is multiplied by zeros at first. So blocks can be added to a trained voice.

    text_size: V_text where the blocks also read the text row itself, by a table of their own; 0 as in the paper,
               where they see the trunk's output alone
    Source: arXiv 2408.16725, section 3.3; gpt-omni/mini-omni litgpt/model.py, `post_adapter`.
    """

    def __init__(self, trunk: Any, blocks: int, audio_size: int, text_size: int = 0) -> None:
        super().__init__()
        D = trunk.hidden_size
        heads = getattr(trunk, "num_attention_heads", None) or max(1, D // 64)
        rope = getattr(trunk, "rope_parameters", None) or {}
        config = Qwen2Config(
            vocab_size=1,
            hidden_size=D,
            intermediate_size=getattr(trunk, "intermediate_size", None) or 4 * D,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            num_key_value_heads=getattr(trunk, "num_key_value_heads", None) or heads,
            max_position_embeddings=getattr(trunk, "max_position_embeddings", None) or 2048,
            rms_norm_eps=getattr(trunk, "rms_norm_eps", None) or 1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": rope.get("rope_theta", 10_000.0)},
        )
        config._attn_implementation = "sdpa"
        self.blocks = nn.ModuleList(Qwen2DecoderLayer(config, i) for i in range(blocks))
        self.norm = Qwen2RMSNorm(D, eps=config.rms_norm_eps)
        self.head = nn.Linear(D, NUM_STREAMS * audio_size, bias=False)
        self.rotary = Qwen2RotaryEmbedding(config)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(weight)
        self.text = nn.Embedding(text_size, D) if text_size else None
        if self.text is not None:
            nn.init.zeros_(self.text.weight)

    def forward(self, x: Tensor, cache: DynamicCache | None = None, text_ids: Tensor | None = None) -> Tensor:
        """(B, S, D) of the trunk -> (B, S, D) before the head; needs every step, or its cache.

        text_ids: (B, S) ids of the text row at these steps; wanted where the blocks read it
        """
        S = x.shape[1]
        if self.text is not None:
            if text_ids is None:
                raise ValueError("This TTS adapter reads the text row: give its ids at the same steps as text_ids.")
            x = x + self.text(text_ids)
        past = 0 if cache is None else cache.get_seq_length()
        positions = torch.arange(past, past + S, device=x.device)[None]         # (1, S)
        rotary = self.rotary(x, positions)
        mask = None                                                             # plain causal attention
        if past and S > 1:                                                      # several steps after others
            mask = torch.ones(S, past + S, dtype=torch.bool, device=x.device).tril(past)[None, None]
        for block in self.blocks:
            x = block(x, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
        return self.norm(x)


class ScaledEmbedding(nn.Embedding):
    """Token embeddings times a constant, as in Gemma; the text head, where it is tied, is not scaled."""

    def __init__(self, ids: int, width: int, scale: float) -> None:
        super().__init__(ids, width)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """(...) int64 -> (..., D)"""
        x = super().forward(input)
        return x if self.scale == 1 else x * self.scale


class OmniModel(nn.Module):
    """Any Hugging Face decoder trunk, with eight rows of embeddings, an ear, and eight heads.

    Parts, by which training freezes and thaws:
        text_embed   (V_text, D); its transpose is the text head
        text_head    empty, or the weight and bias that a borrowed language model has of its own
        audio_embed  (7 * V_audio, D), one band per stream; without a TTS adapter also the audio head
        asr_adapter  encoder features -> positions of the language model
        trunk        the decoder, always called with embeddings
        tts_adapter  further blocks and the audio head, or None
    """

    def __init__(self, config: OmniConfig) -> None:
        super().__init__()
        self.config = config
        vocab = config.vocab
        # The trunk's own embedding is never used: built with one row, then taken out.
        no_ids = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
        trunk_config = AutoConfig.for_model(**{**config.trunk, **no_ids})
        self.trunk = AutoModel.from_config(trunk_config)
        self.trunk.set_input_embeddings(nn.Identity())
        if config.tts_before_norm:              # then the last norm belongs to the text head alone
            self.trunk.text_norm, self.trunk.norm = self.trunk.norm, nn.Identity()
        D = trunk_config.hidden_size
        self.text_embed = ScaledEmbedding(vocab.text_size, D, config.text_scale)
        self.audio_embed = nn.Embedding(NUM_STREAMS * vocab.audio_size, D)
        self.asr_adapter = ASRAdapter(config.ear, D)
        self.tts_adapter = None
        if config.tts_blocks:
            text_size = vocab.text_size if config.tts_reads_text else 0
            self.tts_adapter = TTSAdapter(trunk_config, config.tts_blocks, vocab.audio_size, text_size)
        self.text_head = nn.ParameterDict()
        if not config.text_tied:
            self.text_head["weight"] = nn.Parameter(torch.empty(vocab.text_size, D))
        if config.text_bias:
            self.text_head["bias"] = nn.Parameter(torch.zeros(vocab.text_size))
        for weight in (self.text_embed.weight, self.audio_embed.weight, self.text_head.get("weight")):
            if weight is not None:
                nn.init.normal_(weight, std=0.02)
        self.bands: Tensor
        bands = torch.arange(NUM_STREAMS)[:, None] * vocab.audio_size           # (7, 1): the layer shift
        self.register_buffer("bands", bands, persistent=False)

    @classmethod
    def without_blocks(cls, config: OmniConfig, dtype: torch.dtype = torch.float32, device: str = "cpu") -> "OmniModel":
        """A model of which only embeddings and ASR adapter take memory, both still to be filled; all else is shapes.

        For a `FastDecoder`, which needs no more of the model than that: it packs the blocks as it reads them, and so
        they never lie in memory as float32. `forward` of such a model does not run.

        dtype: of what is there
        """
        with torch.device("meta"):
            model = cls(config)
        for part in (model.text_embed, model.audio_embed, model.asr_adapter):
            part.to(dtype).to_empty(device=device)
        bands = torch.arange(NUM_STREAMS, device=device)[:, None] * config.vocab.audio_size
        model.register_buffer("bands", bands, persistent=False)
        return model.eval()

    # --- the steps of one forward pass ------------------------------------------------------------------

    def forward(
        self,
        text_ids: Tensor,
        audio_ids: Tensor,
        features: Tensor | None = None,
        feature_lengths: Tensor | None = None,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Eight rows in, eight rows of logits out.

        text_ids, audio_ids, features, feature_lengths: as in `embed`
        cache:   of the steps before these, or None when these are all; extended in place
        returns: text logits (B, S, V_text), audio logits (B, 7, S, V_audio)
        """
        hidden = self.run(self.embed(text_ids, audio_ids, features, feature_lengths), cache)
        return self.text_logits(hidden), self.audio_logits(hidden, cache, text_ids)

    def embed(
        self,
        text_ids: Tensor,
        audio_ids: Tensor,
        features: Tensor | None = None,
        feature_lengths: Tensor | None = None,
    ) -> Tensor:
        """Each step's input is the mean of its eight row embeddings.

        text_ids:        (B, S)     ids of the text row
        audio_ids:       (B, 7, S)  ids of each stream before the layer shift, 0 .. V_audio - 1
        features:        (B, T, D_ear) of the encoder; once adapted they replace steps 1..n of the 7 audio
                         rows, while the text row keeps its pad_t there. None where nothing is heard
        feature_lengths: (B,) true lengths of padded features, 0 for a sample that only reads; None: all T
        returns:         (B, S, D)
        """
        B, Q, S = audio_ids.shape
        assert Q == NUM_STREAMS and text_ids.shape == (B, S), (text_ids.shape, audio_ids.shape)
        seven = (audio_ids + self.bands).transpose(1, 2).reshape(B * S, Q)
        audio = F.embedding_bag(seven, self.audio_embed.weight, mode="sum").view(B, S, -1)  # sum of 7 rows
        if features is not None:
            audio = self._hear(audio, features, feature_lengths)
        return (self.text_embed(text_ids) + audio) / NUM_ROWS

    def _hear(self, audio: Tensor, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Put the adapted features in the place of steps 1..n of `audio`, the sum of the 7 audio rows."""
        B, T, _ = features.shape
        if lengths is None:
            lengths = torch.full((B,), T, device=audio.device)
        lengths = lengths.to(audio.device)
        features = features.to(self.text_embed.weight.dtype)
        inside = torch.arange(T, device=audio.device) < lengths[:, None]        # (B, T)
        positions = -(-lengths // self.config.ear.stack)                        # ceil: (B,)
        heard = self.asr_adapter(features * inside[..., None], positions)       # (B, n, D)
        if self.config.ear.soft_words:
            heard = self.soft_words(heard)
        n = min(heard.shape[1], audio.shape[1] - 1)                             # the rest is padding
        placed = torch.arange(n, device=audio.device) < positions[:, None]      # (B, n)
        steps = torch.where(placed[..., None], NUM_STREAMS * heard[:, :n], audio[:, 1 : 1 + n])
        return torch.cat([audio[:, :1], steps.to(audio.dtype), audio[:, 1 + n :]], dim=1)

    def likeness(self, heard: Tensor) -> tuple[Tensor, Tensor]:
        """What each position that the adapter filled sounds like, by the embeddings near it.

        The sum of a step's eight rows is text_embed(pad_t) + 7 * heard where it is heard, and would be
        text_embed(word) + 7 rows of pad_a where the word stood in the text row. The difference of the two
        should be nothing: the nearer, the likelier is the word, as under Gaussians of one width around
        the embeddings.

        heard:   (B, n, D) of the ASR adapter
        returns: log probability of every token, and last of no token, (B, n, text_base + 1); and the squared
                 distance to the nearest of them, (B, n), in parts of an embedding's squared length
        """
        words, silence = self._words()
        words = words.detach()
        lengths = words.square().sum(-1)                                        # squared
        scale = lengths.median()                                                # ids of no text may be far longer
        x = NUM_STREAMS * heard + silence.detach()
        logits = F.linear(x, words).float() - lengths / 2                       # |x|^2 / 2 is the same for all
        distance = (x.float().square().sum(-1) - 2 * logits.max(-1).values) / scale
        return (logits / (WORD_SPREAD * scale)).log_softmax(-1), distance

    def soft_words(self, heard: Tensor) -> Tensor:
        """The embeddings of the words that are heard, mixed where it is uncertain which: (B, n, D) -> (B, n, D).

        A small adapter points at the right word, but lands beside it. A large language model finds its
        way from there; ours wrote more words wrongly than the nearest embeddings alone have wrong. So it gets
        words as it knows them from text, and of an unclear word all that it may have been, the likeliest above all.
        """
        words, silence = self._words()
        return (sharpened(self.likeness(heard)[0]).to(words.dtype) @ words - silence) / NUM_STREAMS

    def mixed(self, words: Tensor, shares: Tensor) -> Tensor:
        """The same from a few words of each position and how much there is of each: both (..., K) -> (..., D)."""
        table, silence = self._words()
        return ((shares[..., None] * table[words]).sum(-2) - silence) / NUM_STREAMS

    def _words(self) -> tuple[Tensor, Tensor]:
        """Embeddings of all tokens and of pad_t, (text_base + 1, D); and what a step that is heard has besides
        the adapter's output, less what it would have beside a token in the text row, (D,)."""
        vocab, words = self.config.vocab, self.text_embed.weight
        marks = self.audio_embed.weight[self.bands[:, 0] + vocab.pad_a].sum(0)
        return torch.cat([words[: vocab.text_base], words[vocab.pad_t :][:1]]), words[vocab.pad_t] - marks

    def run(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """The trunk, its last norm included (but see `tts_before_norm`): (B, S, D) -> (B, S, D).

        Padding belongs on the right: causal attention then needs no mask.
        """
        past = None if cache is None else cache.trunk
        out = self.trunk(inputs_embeds=x, past_key_values=past, use_cache=cache is not None)
        return out.last_hidden_state

    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V_text)

        In two pieces unless it trains: a matrix product may round otherwise when it has more columns,
        and a borrowed language model's logits are to stay what they were, bit for bit.
        """
        if self.config.tts_before_norm:
            hidden = self.trunk.text_norm(hidden)
        weight, bias = self.text_head.get("weight", self.text_embed.weight), self.text_head.get("bias")
        if self.training:
            return F.linear(hidden, weight, bias)
        pieces = [self.config.vocab.text_base, NUM_SPECIALS]
        biases = [None, None] if bias is None else bias.split(pieces)
        return torch.cat([F.linear(hidden, w, b) for w, b in zip(weight.split(pieces), biases, strict=True)], dim=-1)

    def audio_logits(self, hidden: Tensor, cache: Cache | None = None, text_ids: Tensor | None = None) -> Tensor:
        """(B, S, D) of every step, or of the steps after those in the cache -> (B, 7, S, V_audio)"""
        return self.audio_head(self.speak(hidden, cache, text_ids)).transpose(1, 2)

    def speak(self, hidden: Tensor, cache: Cache | None = None, text_ids: Tensor | None = None) -> Tensor:
        """The TTS blocks, if any, up to but not including the audio head: (B, S, D) -> (B, S, D).

        text_ids: (B, S) ids of the text row at these steps; wanted where `config.tts_reads_text`
        """
        if self.tts_adapter is None:
            return hidden
        return self.tts_adapter(hidden, None if cache is None else cache.tts, text_ids)

    def audio_head(self, spoken: Tensor) -> Tensor:
        """What `speak` returned, at the steps where logits are wanted: (..., D) -> (..., 7, V_audio)."""
        weight = self.audio_embed.weight if self.tts_adapter is None else self.tts_adapter.head.weight
        return F.linear(spoken, weight).unflatten(-1, (NUM_STREAMS, -1))

    def new_cache(self) -> Cache:
        """An empty cache for `forward`, `run` and `speak`."""
        tts = None if self.tts_adapter is None else DynamicCache()
        return Cache(trunk=DynamicCache(config=self.trunk.config), tts=tts)

    # --- files ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors; `load` reads them back.

        dtype: how to store the weights, such as torch.float16 for half the bytes; None: as they are
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / CONFIG_FILE) as temporary:
            temporary.write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")
        tensors = {name: tensor.to(dtype) for name, tensor in self.state_dict().items()}
        save_safetensors(folder / WEIGHTS_FILE, tensors)

    @classmethod
    def load(cls, folder: str | Path) -> "OmniModel":
        """Read config.json and every *.safetensors of a folder, in name order, later files over earlier ones.

        Weights may be stored as float16 or bfloat16; they become float32. Returned in eval mode.
        """
        folder = Path(folder)
        if not (folder / CONFIG_FILE).is_file():
            raise FileNotFoundError(f"{folder} holds no {CONFIG_FILE}, so it is no saved model.")
        config = OmniConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text()))
        with no_init_weights():  # every weight is about to be read
            model = cls(config)
        files = sorted(folder.glob("*.safetensors"))
        missing = set(model.state_dict())
        for file in files:
            missing -= set(model.load_over(file))
        if missing:
            names = ", ".join(file.name for file in files) or "no *.safetensors file"
            first = f"{min(missing)} and {len(missing) - 1} more" if len(missing) > 1 else min(missing)
            raise ValueError(f"{folder} ({names}) lacks weights of the model: {first}.")
        return model.eval()

    def load_over(self, file: str | Path) -> list[str]:
        """Read one safetensors file, whole or partial, over this model's weights; return their names."""
        own = self.state_dict()
        tensors = unpack_int(load_safetensors(file))
        for name, tensor in tensors.items():
            if name not in own:
                raise ValueError(f"{file} holds {name}, which the model does not have.")
            if tensor.shape != own[name].shape:
                stored, wanted = tuple(tensor.shape), tuple(own[name].shape)
                raise ValueError(f"{file} holds {name} as {stored}, but the model wants {wanted}.")
        for name, tensor in tensors.items():
            own[name].copy_(tensor)  # shares memory with the parameter; converts to its dtype
        return list(tensors)

    # --- other people's language models -----------------------------------------------------------------

    @classmethod
    def from_release(cls, source: str | Path = release.RELEASE_ID) -> "OmniModel":
        """The released gpt-omni/mini-omni checkpoint, or one in its layout: the `mini-omni` preset.

        source: a folder with lit_model.pth and model_config.yaml, or an id on the Hugging Face hub

        Weights become float32, whatever the file has. Returned in eval mode. `generate` with
        `as_release=True` says the very ids that the released code says with these weights.
        raises: OSError or ValueError of one sentence; there is no half-loaded model
        """
        folder = release.release_folder(source)
        config = release.read_config(folder)
        if (folder / release.TOKENIZER_FILE).is_file():
            release.read_tokenizer(folder, config.vocab)
        with no_init_weights():  # every weight is about to be read
            model = cls(config)
        own = model.state_dict()
        for name, tensor in release.read_weights(folder, config, own):
            own[name].copy_(tensor)
        return model.eval()

    @classmethod
    def from_backbone(
        cls, source: str | Path | PreTrainedModel, like: OmniConfig = LITE, **from_pretrained: Any
    ) -> "OmniModel":
        """Give a pretrained text model ears and a voice: its weights as the trunk, new parts untrained.

        source: a causal language model, its folder, or its id on the Hugging Face hub; Baichuan's become LLaMA's
        like:   the preset whose ears, codec and TTS adapter to take
        from_pretrained: passed on when `source` is a name, such as gguf_file="model.gguf"

        The model's (padded) vocabulary keeps its ids, the new ones follow it; their embeddings start at
        the mean of the old ones. Until it is trained, the text path is the language model's own, bit
        for bit: `text_logits(run(text_embed(ids)))`, first `vocab.text_base` columns. Needs a model whose
        base takes `inputs_embeds` and whose logits are one linear layer on it; others are refused.
        """
        lm = source if isinstance(source, PreTrainedModel) else _load_lm(source, from_pretrained)
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
            tts_reads_text=False,               # a table of a large vocabulary would outweigh the voice
        )
        model = cls(config)
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


def sharpened(log_probs: Tensor) -> Tensor:
    """How much of each word `OmniModel.soft_words` takes: (..., words) of `likeness` -> (..., words), 1 together."""
    return (SHARPER * log_probs).softmax(-1)


# What a language model's config says of its vocabulary and its files, not of its blocks.
_NOT_OF_THE_TRUNK = {
    "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "use_cache",
    "transformers_version", "architectures", "dtype", "torch_dtype", "auto_map", "_name_or_path",
}  # fmt: skip


def _load_lm(source: str | Path, options: dict[str, Any]) -> PreTrainedModel:
    """A causal language model of any kind, in float32."""
    if "gguf_file" not in options:
        card, _ = PreTrainedConfig.get_config_dict(source, **options)
        if card.get("model_type") == "baichuan":
            return load_baichuan(source)
    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)


@torch.no_grad()
def _check_same_text(model: OmniModel, lm: PreTrainedModel) -> None:
    """Refuse a language model that does more around its base than this project knows of."""
    if lm.dtype != torch.float32:
        return  # its own arithmetic is rounder than ours
    ids = torch.arange(min(16, model.config.vocab.text_base))[None]
    was_training = lm.training
    theirs = lm.eval()(ids.to(lm.device)).logits.cpu()
    lm.train(was_training)
    ours = model.text_logits(model.run(model.text_embed(ids)))[..., : theirs.shape[-1]]
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{model.config.trunk['model_type']} scales its embeddings or logits in a way not supported here."
        )
