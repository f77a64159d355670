"""The sizes of every model, as frozen dataclasses.

`lite` is trained in this repository and answers in real time on two CPU cores.
`mini-omni` has the sizes of arXiv 2408.16725. Both run the same code.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from omni_lite.vocab import Vocab


@dataclass(frozen=True)
class CodecConfig:
    """kind "lite" is this project's LiteSNAC, "snac" the published 24 kHz SNAC."""

    kind: str                                 # "lite" | "snac"
    codebook: int                             # entries of each of the three codebooks
    width: int = 256                          # D of LiteSNAC's ConvNeXt blocks
    codebook_dim: int = 8                     # dimensions in which the nearest entry is searched


@dataclass(frozen=True)
class EarConfig:
    """A frozen Whisper encoder, then the ASR adapter that leads into the language model.

    whole_window: encode Whisper's whole 30 s, then keep the question's features, as the release does.
        Otherwise the window ends with the question, which costs a fraction of the time
    soft_words: replace the adapter's output by a mixture of token embeddings, see `OmniModel.soft_words`.
        Not in the paper: a small language model needs it
    """

    whisper: str                              # "tiny.en" | "small"
    width: int                                # D of its features: 384 | 768
    stack: int                                # features joined into one position: 50 / stack per second
    adapter: str                              # "mlp" (GELU) | "conv" | "swiglu" | "linear"
    hidden: int                               # width of the adapter's hidden layer
    blocks: int = 0                           # ConvNeXt blocks of "conv"
    whole_window: bool = False
    soft_words: bool = False


@dataclass(frozen=True)
class OmniConfig:
    """One whole model.

    trunk: keyword arguments of the trunk's transformers config, with its `model_type`
    tts_blocks: transformer blocks before the audio head (the paper's TTS adapter);
        0 is the released form, whose audio head is tied to the audio embeddings
    text_tied, text_bias, text_scale: the form of the text head, and the factor of token embeddings;
        they differ from the defaults where a borrowed language model needs it
    tts_before_norm: the blocks take the trunk's output before its last norm, as the release's
        `post_adapter` does; the trunk then needs a `norm`, such as Qwen2's
    tts_reads_text: the blocks also read the text stream itself, see `TTSAdapter`. Not in the paper: a word
        to be spoken then need not pass through a trunk that is busy with the next one
    """

    name: str
    vocab: Vocab
    ear: EarConfig
    codec: CodecConfig
    trunk: dict[str, Any] = field(hash=False)
    tts_blocks: int = 0
    text_tied: bool = True
    text_bias: bool = False
    text_scale: float = 1.0
    tts_before_norm: bool = False
    tts_reads_text: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for config.json; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "OmniConfig":
        """Rebuild a config that `to_dict` wrote."""
        parts = dict(vocab=Vocab(**data["vocab"]), ear=EarConfig(**data["ear"]), codec=CodecConfig(**data["codec"]))
        return cls(**{**data, **parts})


LITE = OmniConfig(
    name="lite",
    vocab=Vocab(text_base=2048, codebook=1024),
    ear=EarConfig(whisper="tiny.en", width=384, stack=4, adapter="conv", hidden=768, blocks=4, soft_words=True),
    codec=CodecConfig(kind="lite", codebook=1024),
    trunk=dict(
        model_type="qwen2", hidden_size=256, intermediate_size=512,
        num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2048, rope_theta=10_000.0, rms_norm_eps=1e-6,
    ),
    tts_blocks=6,
    tts_reads_text=True,
)
# Qwen2-0.5B, Whisper-small, SNAC 24 kHz: the paper's parts. The paper adds a TTS adapter of 6 blocks;
# the released weights have none (`post_adapter: false`), so this preset has none either.
MINI_OMNI = OmniConfig(
    name="mini-omni",
    vocab=Vocab(text_base=151_936, codebook=4096),
    ear=EarConfig(whisper="small", width=768, stack=1, adapter="swiglu", hidden=4864, whole_window=True),
    codec=CodecConfig(kind="snac", codebook=4096),
    trunk=dict(
        model_type="qwen2", hidden_size=896, intermediate_size=4864,
        num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        max_position_embeddings=2048, rope_theta=1_000_000.0, rms_norm_eps=1e-6,
    ),
)
