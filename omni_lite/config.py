"""The presets as frozen dataclasses: every size of a model in one place.

`lite` is trained in this repository and answers in real time on two CPU cores;
`mini-omni` has the sizes of arXiv 2408.16725. All code after the preset is shared.
`smollm2` is a general LLM that only hears: its answers are text, see `listen.py`.
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
    """A frozen Whisper encoder and the adapter that leads into the language model.

    soft_words: what the adapter puts at a position is read as words before the language model gets it: see
        `OmniModel.soft_words`. Not in the paper: a small language model needs it
    whole_window: hear Whisper's whole 30 s and keep the question's part, as the release does; otherwise
        the window ends with the question, which costs a fraction of the time
    """

    whisper: str                              # "tiny.en" | "small"
    width: int                                # D of its features: 384 | 768
    stack: int                                # features joined into one position: 50 / stack per second
    adapter: str                              # "mlp" (GELU) | "conv" | "swiglu" | "linear"
    hidden: int                               # width of the adapter's hidden layer
    blocks: int = 0                           # of "conv": its ConvNeXt blocks
    whole_window: bool = False
    soft_words: bool = False


@dataclass(frozen=True)
class OmniConfig:
    """One whole model.

    trunk: keyword arguments of the trunk's transformers config, with its `model_type`
    tts_blocks: extra transformer blocks before the audio head (the paper's TTS adapter);
        0 is the released form, whose audio head is tied to the audio embeddings
    tts_before_norm: those blocks take the trunk's output before its last norm, as the release's
        `post_adapter` does; a trunk with a `norm` is needed for it, such as Qwen2's
    tts_reads_text: those blocks also read the text row itself, see `TTSAdapter`. Not in the paper: a word to be said
        then need not pass through a trunk that is busy with the next one
    text_tied, text_bias, text_scale: the form of the text head, and what token embeddings are
        multiplied by: a borrowed language model brings them with it
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
        """Plain data for the JSON card; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "OmniConfig":
        """Rebuild a config that `to_dict` wrote."""
        return cls(
            name=data["name"],
            vocab=Vocab(**data["vocab"]),
            ear=EarConfig(**data["ear"]),
            codec=CodecConfig(**data["codec"]),
            trunk=dict(data["trunk"]),
            tts_blocks=data["tts_blocks"],
            text_tied=data["text_tied"],
            text_bias=data["text_bias"],
            text_scale=data.get("text_scale", 1.0),             # the first cards have neither of these two
            tts_before_norm=data.get("tts_before_norm", False),
            tts_reads_text=data.get("tts_reads_text", False),
        )


LITE = OmniConfig(
    name="lite",
    vocab=Vocab(text_base=2048, codebook=1024),
    ear=EarConfig(whisper="tiny.en", width=384, stack=4, adapter="conv", hidden=768, blocks=4, soft_words=True),
    codec=CodecConfig(kind="lite", codebook=1024),
    trunk=dict(
        model_type="qwen2",
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_theta=10_000.0,
        rms_norm_eps=1e-6,
    ),
    tts_blocks=6,
    tts_reads_text=True,
)

# Qwen2-0.5B, Whisper-small, SNAC 24 kHz: the paper's parts. The paper adds 6 blocks of TTS
# adapter; the released weights have none (`post_adapter: false`), and so has this preset.
MINI_OMNI = OmniConfig(
    name="mini-omni",
    vocab=Vocab(text_base=151_936, codebook=4096),
    ear=EarConfig(whisper="small", width=768, stack=1, adapter="swiglu", hidden=4864, whole_window=True),
    codec=CodecConfig(kind="snac", codebook=4096),
    trunk=dict(
        model_type="qwen2",
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_theta=1_000_000.0,
        rms_norm_eps=1e-6,
    ),
    tts_blocks=0,
)

PRESETS = {preset.name: preset for preset in (LITE, MINI_OMNI)}


# --- an LLM that is never touched, and hears -----------------------------------------------------------

SPEECH = "{speech}"                           # where the user's words stand in an instruction


@dataclass(frozen=True)
class Instruction:
    """What a chat tells the LLM to do with the user's words.

    user:  has SPEECH in it once
    shown: turns that went before, (user's words, answer): an LLM understands what it is shown better than
           what it is told, and these cost nothing, being the same in every chat
    """

    system: str
    user: str = SPEECH
    shown: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Instruction":
        """Rebuild what `asdict` wrote, also after a way through JSON."""
        return cls(data["system"], data["user"], tuple((words, answer) for words, answer in data["shown"]))


@dataclass(frozen=True)
class ListenerConfig:
    """Ears for a frozen LLM: the sizes of what is trained, and the two chats it is placed in.

    limit: tokens of an answer, if nothing else is asked for
    words: ids of the LLM's tokens that can be heard, those of the texts that were trained on; (): all
    """

    name: str
    ear: EarConfig
    transcribe: Instruction
    answer: Instruction
    limit: int = 96
    words: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `config.json`; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ListenerConfig":
        """Rebuild a config that `to_dict` wrote."""
        return cls(data["name"], EarConfig(**data["ear"]), Instruction.from_dict(data["transcribe"]),
                   Instruction.from_dict(data["answer"]), data["limit"], tuple(data["words"]))


# SmolLM2-135M-Instruct. Asked to repeat in other words than these, it answers typed questions as often as it
# repeats them. One short sentence, because a small LLM that may say more soon says anything.
SMOLLM2 = ListenerConfig(
    name="smollm2",
    ear=EarConfig(whisper="tiny.en", width=384, stack=4, adapter="conv", hidden=768, blocks=2),
    transcribe=Instruction(
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        f'Repeat this sentence word for word: "{SPEECH}"',
        tuple((text, text) for text in ("When does the next bus leave?", "Orange, thirty-five, and Berlin.",
                                        "Tell me why my neighbor sings."))),
    answer=Instruction("You are a helpful AI assistant named SmolLM. Answer with one short sentence."),
)
