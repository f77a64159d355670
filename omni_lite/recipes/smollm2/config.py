"""Config of an ASR adapter for a frozen LLM: sizes and chats."""

from dataclasses import asdict, dataclass
from typing import Any

from omni_lite.config import EarConfig

SPEECH = "{speech}"                           # the place of the user's words in an instruction


@dataclass(frozen=True)
class Instruction:
    """A chat that tells the LLM what to do with the user's words.

    user:  contains SPEECH once
    shown: examples (user's words, answer) as earlier turns; their keys and values are computed once
    """

    system: str
    user: str = SPEECH
    shown: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Instruction":
        """The inverse of `asdict`, also from JSON."""
        return cls(data["system"], data["user"], tuple((words, answer) for words, answer in data["shown"]))


@dataclass(frozen=True)
class ListenerConfig:
    """An ASR adapter for a frozen LLM, and the LLM's two chats.

    limit: default limit of an answer, in tokens
    words: ids of the LLM's tokens that the adapter can output, those of the training texts; (): all
    """

    name: str
    ear: EarConfig
    transcribe: Instruction
    answer: Instruction
    limit: int = 96
    words: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `config.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ListenerConfig":
        """The inverse of `to_dict`."""
        return cls(data["name"], EarConfig(**data["ear"]), Instruction.from_dict(data["transcribe"]),
                   Instruction.from_dict(data["answer"]), data["limit"], tuple(data["words"]))


# SmolLM2-135M-Instruct. With other instructions it often answers the question instead of repeating it. "One short
# sentence" keeps a small LLM on topic.
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
