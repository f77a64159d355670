"""Assemble an `Assistant` of any preset.

    lite       this repository's own weights, data/checkpoints/lite
    mini-omni  the released checkpoint: a folder, an id on the Hugging Face hub, or "random"

The functions import `interop` and `fast` themselves: the rest of the core works without them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from omni_lite.assistant import GUIDED, SAMPLING, Assistant, check_device
from omni_lite.config import MINI_OMNI, CodecConfig
from omni_lite.data import load_tokenizer
from omni_lite.folder import CHECKPOINTS, LAST_PHASE, fill, load_model
from omni_lite.hear import Ears

if TYPE_CHECKING:
    from omni_lite.interop.snac import Snac
    from omni_lite.litesnac import LiteSNAC


def load_assistant(
    preset: str = "lite",
    phase: str = LAST_PHASE,
    device: str = "cpu",
    weights: str | Path | None = None,
    precision: str | None = None,
) -> Assistant:
    """A preset's assistant, with the weights after a training phase.

    weights:   another folder than the committed one; for `mini-omni` see `fast.released.load_released`
    precision: "fp32", "bf16" or "int8": decode with `fast.FastDecoder`; None: the readable path
    raises:    OSError or ValueError with one sentence that names the file and the remedy
    """
    if preset == MINI_OMNI.name:
        from omni_lite.fast.released import load_released

        return load_released(weights, device, precision)
    from omni_lite.fast import faster

    device = check_device(device)
    folder = Path(weights or CHECKPOINTS / preset)
    model = load_model(folder, phase)
    ears = load_ears(model.config.ear.whisper, model.config.ear.whole_window)
    codec = load_codec(model.config.codec, folder)
    sampling = GUIDED if model.config.tts_reads_text and phase == LAST_PHASE else SAMPLING
    assistant = Assistant(ears.to(device), model.to(device), codec.to(device), load_tokenizer(folder), sampling)
    return assistant if precision is None else faster(assistant, precision)


def load_ears(name: str = "tiny.en", whole_window: bool = False) -> Ears:
    """The encoder of a published Whisper, see `interop.whisper.load_whisper`; whole_window: see `EarConfig`."""
    from omni_lite.interop.whisper import load_whisper

    return Ears(load_whisper(name), whole_window)


def load_codec(config: CodecConfig, folder: Path) -> "LiteSNAC | Snac":
    """The codec of a model's folder: LiteSNAC from its codec.safetensors, SNAC from its snac_24khz/ or the hub."""
    if config.kind == "snac":
        from omni_lite.interop.release import SNAC_FOLDER
        from omni_lite.interop.snac import Snac, load_snac

        return Snac(load_snac(folder / SNAC_FOLDER))
    codec = build_codec(config)
    fill(codec, folder / "codec.safetensors")
    return codec


def build_codec(config: CodecConfig) -> "LiteSNAC | Snac":
    """A codec of this kind and size with random weights, in eval mode."""
    if config.kind == "lite":
        from omni_lite.litesnac import LiteSNAC

        return LiteSNAC(config).eval()
    if config.kind == "snac":
        from omni_lite.interop.snac import random_snac

        return random_snac(config)
    raise ValueError(f'A codec is "lite" or "snac", not {config.kind!r}.')
