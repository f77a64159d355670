"""The fast path: an assistant that decodes with packed weights on a static cache."""

from omni_lite.assistant import Assistant
from omni_lite.fast.decoder import FastDecoder
from omni_lite.generate import Decoder
from omni_lite.hear import Ears

__all__ = ["FastDecoder", "faster", "hears_in_bf16", "quick"]


def faster(assistant: Assistant, precision: str) -> Assistant:
    """The assistant's parts with a `FastDecoder` at this precision: "fp32", "bf16" or "int8"."""
    decoder = FastDecoder(assistant.model, precision)
    return Assistant(assistant.ears, assistant.model, assistant.codec, assistant.tokenizer, assistant.sampling,
                     assistant.frames, decoder, hears_in_bf16(decoder, assistant.ears))


def quick(assistant: Assistant) -> Assistant:
    """`faster` in fp32 if that is possible, otherwise the assistant itself.

    The logits equal the readable path's up to rounding, in about half the time. An assistant that already has a
    decoder is not changed, nor is one whose model `FastDecoder` cannot run.
    """
    if assistant.decoder is not None or assistant.device.type == "mps":
        return assistant
    try:
        return faster(assistant, "fp32")
    except ValueError:                       # the trunk has other blocks
        return assistant


def hears_in_bf16(decoder: Decoder | None, ears: Ears) -> bool:
    """Whether Whisper computes in bfloat16 beside this decoder.

    It does if the model itself is as imprecise and the time matters. Whisper's whole window of 30 s, which the
    release needs, is most of the time to first audio, and bfloat16 halves it (`make bench`). A short window gains
    almost nothing. Whisper is never packed as int8.
    """
    precision = decoder.precision if isinstance(decoder, FastDecoder) else "fp32"
    return precision == "bf16" or (precision == "int8" and ears.whole_window)
