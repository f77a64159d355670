"""A voice's folder: its config, its weights and the codec that turns its codes into sound."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from omni_lite.audio import atomic_write
from omni_lite.checkpoints import RESTORE, pack_int, save_safetensors
from omni_lite.config import CodecConfig
from omni_lite.folder import CHECKPOINTS, fill
from omni_lite.generate import Codec
from omni_lite.load import build_codec
from omni_lite.voice.model import Voice, VoiceConfig

VOICE_FOLDER = CHECKPOINTS / "voice"
CONFIG, WEIGHTS, CODEC = "config.json", "voice.safetensors", "codec.safetensors"


@dataclass(frozen=True)
class Mouth:
    """A voice and its codec."""

    voice: Voice
    codec: Codec


def load_mouth(folder: str | Path | None = None) -> Mouth:
    """The committed voice, or another; raises OSError or ValueError with one sentence."""
    folder = Path(folder or VOICE_FOLDER)
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"There is no voice in {folder}: train one with `make voice`.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        sizes, kind = VoiceConfig(**config["voice"]), CodecConfig(**config["codec"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not the config of a voice ({error}): {RESTORE}.") from error
    with torch.random.fork_rng(devices=[]):  # new modules draw random weights: keep the caller's RNG state
        voice, codec = Voice(sizes), build_codec(kind)
    fill(voice, folder / WEIGHTS)
    fill(codec, folder / CODEC)
    return Mouth(voice.requires_grad_(False).eval(), codec.requires_grad_(False).eval())


def save_mouth(folder: Path, voice: Voice, codec: torch.nn.Module, kind: CodecConfig) -> list[Path]:
    """Write a folder for `load_mouth`: the voice's matrices with 8 bits a weight, the codec in float16.

    returns: the files
    """
    with atomic_write(folder / CONFIG) as temporary:
        config = dict(voice=asdict(voice.config), codec=asdict(kind))
        temporary.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_safetensors(folder / WEIGHTS, pack_int({key: one.cpu() for key, one in voice.state_dict().items()}))
    save_safetensors(folder / CODEC, {key: one.cpu().half() for key, one in codec.state_dict().items()})
    return [folder / CONFIG, folder / WEIGHTS, folder / CODEC]
