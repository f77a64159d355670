"""Model folders: read and write a model.

    config.json  tokenizer.json  card.json  codec.safetensors
    model.safetensors                        all weights, or instead of it
    <phase>*.safetensors                     the weights that each training phase changed, later ones over earlier ones
"""

import json
import os
from pathlib import Path

import torch

from omni_lite.audio import atomic_write
from omni_lite.checkpoints import RESTORE, copy_tensors, load_safetensors, save_safetensors, unpack_int
from omni_lite.config import OmniConfig
from omni_lite.model import OmniModel

CONFIG_FILE, WHOLE_FILE = "config.json", "model.safetensors"
LAST_PHASE = "final"
# The files of the committed model after each phase; later files overwrite earlier ones.
LINEAGE = {
    "text": ("text",),
    "phase1a": ("text", "phase1a"),
    "phase1b": ("text", "phase1a", "phase1b"),
    "phase2": ("text", "phase1a", "phase1b", "phase2"),
    "phase3": ("phase3",),
    "ears": ("phase3", "ears"),
    "merged": ("phase3", "merged"),
    "reading": ("phase3", "merged", "reading"),
    "final": ("phase3", "merged", "reading", "final"),
}


def data_folder() -> Path:
    """The folder of the committed checkpoints and recordings.

    $OMNI_LITE_DATA if it is set, else the repository's `data` in a clone, else the copy in the installed package.
    """
    if os.environ.get("OMNI_LITE_DATA"):
        return Path(os.environ["OMNI_LITE_DATA"])
    package = Path(__file__).resolve().parent
    inside, clone = package / "_data", package.parent / "data"
    return clone if (clone / "checkpoints").is_dir() else inside


ROOT = data_folder().parent
CHECKPOINTS = data_folder() / "checkpoints"


def read_model_config(folder: Path) -> OmniConfig:
    """Read the folder's config.json; raises OSError or ValueError with one sentence."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no {CONFIG_FILE}. Give a trained model's "
                                "folder, or train one with `make train-lite`.")
    try:
        return OmniConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a config of this project ({error!r}): {RESTORE}.") from error


def load_model(folder: str | Path, phase: str = LAST_PHASE) -> OmniModel:
    """The language model of a folder after `phase`, in float32 and eval mode.

    A folder with model.safetensors has only that one state. Without it, parts that no phase has trained yet have the
    random weights of seed 0.
    """
    if phase not in LINEAGE:
        raise ValueError(f"There is no phase {phase!r}: choose one of {', '.join(LINEAGE)}.")
    folder = Path(folder)
    config = read_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OmniModel(config)
    missing = set(model.state_dict())
    whole = (folder / WHOLE_FILE).exists()
    for name in (Path(WHOLE_FILE).stem,) if whole else LINEAGE[phase]:
        files = sorted(folder.glob(f"{name}*.safetensors"))
        if not files:
            raise FileNotFoundError(f"{folder} has no {name}.safetensors: {RESTORE}.")
        for file in files:
            missing -= set(load_over(model, file))
    if missing and (whole or phase == LAST_PHASE):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{folder} lacks {min(missing)}{more} of the model: {RESTORE}.")
    return model.eval()


def load_over(model: OmniModel, file: str | Path) -> list[str]:
    """Copy the tensors of one safetensors file over a model's weights, in its own dtype; returns their names."""
    own, tensors = model.state_dict(), unpack_int(load_safetensors(file))
    for name, tensor in tensors.items():
        if name not in own:
            raise ValueError(f"{file} holds {name}, which the model does not have: {RESTORE}.")
        if tensor.shape != own[name].shape:
            raise ValueError(f"{file} holds {name} as {tuple(tensor.shape)}, but the model wants "
                             f"{tuple(own[name].shape)}: {RESTORE}.")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)              # shares memory with the parameter
    return list(tensors)


def save_model(folder: str | Path, model: OmniModel, dtype: torch.dtype | None = None) -> None:
    """Write config.json and model.safetensors for `load_model`; dtype: of the stored weights, None: unchanged."""
    save_config(folder, model.config)
    save_safetensors(Path(folder) / WHOLE_FILE, {name: one.to(dtype) for name, one in model.state_dict().items()})


def save_config(folder: str | Path, config: OmniConfig) -> None:
    """Write config.json, from which `load_model` gets the model's sizes."""
    with atomic_write(Path(folder) / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def fill(module: torch.nn.Module, file: str | Path) -> None:
    """Read a whole module's weights; raises ValueError if a name or a shape differs."""
    copy_tensors(module, unpack_int(load_safetensors(file)), file, RESTORE)
