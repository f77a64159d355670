"""OmniModel: a Hugging Face decoder that reads eight streams, then predicts the next id of each.

    8 streams of ids --embed--> x --trunk--> hidden --tied head--> text logits
    features --ASR adapter------^              `--TTS adapter, audio head--> 7 audio logits

Shapes: letter legend in vocab.py. Sources: arXiv 2408.16725, sections 3.1 to 3.3;
gpt-omni/mini-omni litgpt/model.py::GPT.forward.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModel
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from omni_lite.config import OmniConfig
from omni_lite.hear import ASRAdapter
from omni_lite.vocab import NUM_ROWS, NUM_SPECIALS, NUM_STREAMS

WORD_SPREAD = 0.06                           # variance of a position around its embedding, / squared length
SHARPER = 2.0                                # exponent of a soft word's probabilities: unlikely tokens count less


@dataclass
class Cache:
    """Keys and values of the steps so far, for the trunk and for the TTS blocks.

    The two may have different batch sizes: in batch-parallel decoding the trunk runs two batch rows,
    and only batch row 0 speaks. `len(cache)` is the number of the trunk's steps.
    """

    trunk: DynamicCache
    tts: DynamicCache | None

    def __len__(self) -> int:
        return self.trunk.get_seq_length()

    def expand(self, batch: int) -> None:
        """Copy the trunk's one batch row `batch` times: one prefill, several continuations."""
        self.trunk.batch_repeat_interleave(batch)

    def keep(self, row: int) -> None:
        """Drop all of the trunk's batch rows but one."""
        self.trunk.batch_select_indices(torch.tensor([row]))


class TTSAdapter(nn.Module):
    """The paper's TTS adapter: transformer blocks on the trunk's output, then a norm and an audio head.

    The blocks are Qwen2's, of the trunk's width; sizes that the trunk's config lacks get a default. Their output
    projections start at zero, so each block starts as the identity.

    text_size: V_text if the blocks also read the text stream, through an embedding table of their own;
               0 as in the paper, where they see only the trunk's output
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
        """The trunk's output (B, S, D) -> (B, S, D) before the head; needs every step, or its cache.

        text_ids: (B, S) ids of the text stream at these steps, required if the blocks read it
        """
        S = x.shape[1]
        if self.text is not None:
            if text_ids is None:
                raise ValueError("This TTS adapter reads the text stream: give its ids at the same steps as text_ids.")
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
    """Token embeddings times a constant, as in Gemma; a tied text head is not scaled."""

    def __init__(self, ids: int, width: int, scale: float) -> None:
        super().__init__(ids, width)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """(...) int64 -> (..., D)."""
        x = super().forward(input)
        return x if self.scale == 1 else x * self.scale


class OmniModel(nn.Module):
    """Any Hugging Face decoder as the trunk, with embeddings and heads for eight streams.

    Parts, each of which a training phase can freeze:
        text_embed   (V_text, D); the text head is tied to it
        text_head    empty, or a borrowed language model's own weight and bias
        audio_embed  (7 * V_audio, D), one band per stream; without a TTS adapter also the audio head
        asr_adapter  encoder features -> positions of the language model
        trunk        the decoder, always called with embeddings
        tts_adapter  further blocks and the audio head, or None
    """

    def __init__(self, config: OmniConfig) -> None:
        super().__init__()
        self.config = config
        vocab = config.vocab
        # The trunk's own embedding is never used: it gets one entry, then it is removed.
        no_ids = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
        trunk_config = AutoConfig.for_model(**{**config.trunk, **no_ids})
        self.trunk = AutoModel.from_config(trunk_config)
        self.trunk.set_input_embeddings(nn.Identity())
        if config.tts_before_norm:              # the last norm then belongs to the text head alone
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
        self.bands: Tensor                                                      # (7, 1): the layer shift
        self.register_buffer("bands", torch.arange(NUM_STREAMS)[:, None] * vocab.audio_size, persistent=False)

    # --- the steps of one forward pass ------------------------------------------------------------------

    def forward(
        self, text_ids: Tensor, audio_ids: Tensor, features: Tensor | None = None,
        feature_lengths: Tensor | None = None, cache: Cache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Ids of eight streams in, logits of eight streams out.

        text_ids, audio_ids, features, feature_lengths: as in `embed`
        cache:   of the steps before these, extended in place; None if there are none before
        returns: text logits (B, S, V_text), audio logits (B, 7, S, V_audio)
        """
        hidden = self.run(self.embed(text_ids, audio_ids, features, feature_lengths), cache)
        return self.text_logits(hidden), self.audio_logits(hidden, cache, text_ids)

    def embed(
        self, text_ids: Tensor, audio_ids: Tensor, features: Tensor | None = None,
        feature_lengths: Tensor | None = None, adapted: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Each step's input is the mean of its eight embeddings.

        text_ids:        (B, S)     ids of the text stream
        audio_ids:       (B, 7, S)  ids of each audio stream before the layer shift, 0 .. V_audio - 1
        features:        (B, T, D_ear) of the encoder, or None. The ASR adapter's output replaces steps 1..n of the
                         7 audio streams; the text stream keeps its pad_t there
        feature_lengths: (B,) true lengths of padded features, 0 for a question that is read; None: all T
        adapted:         the result of `adapt`, if it is known already
        returns:         (B, S, D)
        """
        B, Q, S = audio_ids.shape
        assert Q == NUM_STREAMS and text_ids.shape == (B, S), (text_ids.shape, audio_ids.shape)
        seven = (audio_ids + self.bands).transpose(1, 2).reshape(B * S, Q)
        audio = F.embedding_bag(seven, self.audio_embed.weight, mode="sum").view(B, S, -1)  # sum of 7 streams
        if adapted is None and features is not None:
            adapted = self.adapt(features, feature_lengths)
        if adapted is not None:
            audio = self._place(audio, *adapted)
        return (self.text_embed(text_ids) + audio) / NUM_ROWS

    def adapt(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The ASR adapter on a batch of features.

        features: (B, T, D_ear);  lengths: (B,) as `feature_lengths` of `embed`
        returns:  (B, n, D); the number of positions of each question, (B,)
        """
        B, T, _ = features.shape
        if lengths is None:
            lengths = torch.full((B,), T, device=features.device)
        lengths = lengths.to(features.device)
        features = features.to(self.text_embed.weight.dtype)
        inside = torch.arange(T, device=features.device) < lengths[:, None]     # (B, T)
        positions = -(-lengths // self.config.ear.stack)                        # ceil: (B,)
        return self.asr_adapter(features * inside[..., None], positions), positions

    def _place(self, audio: Tensor, adapted: Tensor, positions: Tensor) -> Tensor:
        """Put the adapter's output at steps 1..n of `audio`, the sum of the 7 audio streams."""
        if self.config.ear.soft_words:
            adapted = self.soft_words(adapted)
        n = min(adapted.shape[1], audio.shape[1] - 1)                           # the rest is padding
        placed = torch.arange(n, device=audio.device) < positions[:, None]      # (B, n)
        steps = torch.where(placed[..., None], NUM_STREAMS * adapted[:, :n], audio[:, 1 : 1 + n])
        return torch.cat([audio[:, :1], steps.to(audio.dtype), audio[:, 1 + n :]], dim=1)

    def likeness(self, adapted: Tensor) -> tuple[Tensor, Tensor]:
        """Which token each position of the adapter stands for, by the distance to the token embeddings.

        The eight embeddings of such a step add up to text_embed(pad_t) + 7 * adapted. If the token were in the text
        stream instead, they would add up to text_embed(token) + the 7 embeddings of pad_a. The nearer the two sums,
        the likelier the token: a Gaussian of one width around every embedding.

        adapted: (B, n, D) of the ASR adapter
        returns: log probability of every token, then of no token, (B, n, text_base + 1); the squared
                 distance to the nearest, (B, n), relative to an embedding's squared length
        """
        words, silence = self._words()
        words = words.detach()
        lengths = words.square().sum(-1)                                        # squared
        scale = lengths.median()                                                # unused ids may be far longer
        x = NUM_STREAMS * adapted + silence.detach()
        logits = F.linear(x, words).float() - lengths / 2                       # |x|^2 / 2 is the same for all
        distance = (x.float().square().sum(-1) - 2 * logits.max(-1).values) / scale
        return (logits / (WORD_SPREAD * scale)).log_softmax(-1), distance

    def soft_words(self, adapted: Tensor) -> Tensor:
        """Mixtures of token embeddings, weighted by `likeness`: (B, n, D) -> (B, n, D).

        A small adapter lands near the right embedding, not on it. A large language model copes with that; a small
        one makes further errors. With soft words its input looks like text, and an unclear word keeps its
        alternatives.
        """
        words, silence = self._words()
        return (sharpened(self.likeness(adapted)[0]).to(words.dtype) @ words - silence) / NUM_STREAMS

    def mixed(self, words: Tensor, shares: Tensor) -> Tensor:
        """Soft words from K token ids and their shares at each position: both (..., K) -> (..., D)."""
        table, silence = self._words()
        return ((shares[..., None] * table[words]).sum(-2) - silence) / NUM_STREAMS

    def _words(self) -> tuple[Tensor, Tensor]:
        """Embeddings of all tokens and of pad_t, (text_base + 1, D); pad_t's minus the sum of 7 pad_a's, (D,)."""
        vocab, words = self.config.vocab, self.text_embed.weight
        pads = self.audio_embed.weight[self.bands[:, 0] + vocab.pad_a].sum(0)
        return torch.cat([words[: vocab.text_base], words[vocab.pad_t :][:1]]), words[vocab.pad_t] - pads

    def run(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """The trunk with its last norm (without it if `tts_before_norm`): (B, S, D) -> (B, S, D).

        Padding belongs on the right: causal attention then needs no mask.
        """
        past = None if cache is None else cache.trunk
        out = self.trunk(inputs_embeds=x, past_key_values=past, use_cache=cache is not None)
        return out.last_hidden_state

    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V_text).

        In eval mode the special tokens get a matrix product of their own. A wider product may round differently,
        and a borrowed language model's logits must stay the same, bit for bit.
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
        """The trunk's output (B, S, D) at every step, or after those in the cache -> (B, 7, S, V_audio)."""
        return self.audio_head(self.speak(hidden, cache, text_ids)).transpose(1, 2)

    def speak(self, hidden: Tensor, cache: Cache | None = None, text_ids: Tensor | None = None) -> Tensor:
        """The TTS adapter without its audio head: (B, S, D) -> (B, S, D); text_ids as in `TTSAdapter.forward`."""
        if self.tts_adapter is None:
            return hidden
        return self.tts_adapter(hidden, None if cache is None else cache.tts, text_ids)

    def audio_head(self, spoken: Tensor) -> Tensor:
        """The output of `speak`, at any steps: (..., D) -> (..., 7, V_audio)."""
        weight = self.audio_embed.weight if self.tts_adapter is None else self.tts_adapter.head.weight
        return F.linear(spoken, weight).unflatten(-1, (NUM_STREAMS, -1))

    def new_cache(self) -> Cache:
        """An empty cache for `forward`, `run` and `speak`."""
        tts = None if self.tts_adapter is None else DynamicCache()
        return Cache(trunk=DynamicCache(config=self.trunk.config), tts=tts)


def sharpened(log_probs: Tensor) -> Tensor:
    """Shares of a soft word from the log probabilities of `likeness`: (..., words) -> (..., words), sum 1."""
    return (SHARPER * log_probs).softmax(-1)
