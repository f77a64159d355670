"""Assemble the released Mini-Omni, decoded by the readable path or packed as it is read."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from omni_lite.assistant import Assistant, check_device
from omni_lite.config import MINI_OMNI, OmniConfig
from omni_lite.data import load_tokenizer
from omni_lite.fast import FastDecoder, hears_in_bf16
from omni_lite.folder import CHECKPOINTS
from omni_lite.generate import Sampling
from omni_lite.hear import Ears
from omni_lite.interop.release import RELEASE_ID, SNAC_FOLDER, load_release, read_tokenizer, release_folder
from omni_lite.interop.snac import Snac, load_snac, random_snac
from omni_lite.interop.whisper import load_whisper, random_whisper
from omni_lite.model import OmniModel

RANDOM = "random"                            # instead of a folder: an untrained model that speaks noise
RELEASE_FRAMES = 350                         # limit of an answer of the released model


def load_released(source: str | Path | None = None, device: str = "cpu", precision: str | None = None) -> Assistant:
    """The released Mini-Omni, with greedy sampling as in its own code.

    source: a folder of the release, its id on the Hugging Face hub (None: the published one), or "random"

    Whisper-small and SNAC are the folder's small.pt and snac_24khz/; without them they come from their caches or the
    internet. "random" needs no files: the sizes are the paper's, the weights are random, and the answer is noise.
    """
    device, decoder = check_device(device), None
    if str(source) == RANDOM:
        ears, codec, tokenizer = random_parts(MINI_OMNI)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            decoder = None if precision is None else FastDecoder.random(MINI_OMNI, precision, device)
            model = OmniModel(MINI_OMNI).to(device) if decoder is None else decoder.model
    else:
        folder = release_folder(source or RELEASE_ID)
        if precision is None:
            model = load_release(folder).to(device)
        else:
            decoder = FastDecoder.from_release(folder, precision, device)
            model = decoder.model
        tokenizer = read_tokenizer(folder, model.config.vocab)
        ears = Ears(load_whisper(MINI_OMNI.ear.whisper, folder=folder), MINI_OMNI.ear.whole_window)
        codec = Snac(load_snac(folder / SNAC_FOLDER))
    wanted = (model.config.ear.width, model.config.codec.codebook)
    if (ears.width, codec.codebook_size) != wanted:
        raise ValueError(
            f"The model of {source} needs a Whisper of width {wanted[0]} and a codec with {wanted[1]} entries, but it "
            f"got {ears.width} and {codec.codebook_size}: give it its own small.pt and {SNAC_FOLDER}/.")
    return Assistant(ears.to(device), model, codec.to(device), tokenizer, Sampling(), RELEASE_FRAMES, decoder,
                     bf16_ears=hears_in_bf16(decoder, ears))


def random_parts(config: OmniConfig) -> tuple[Ears, Snac, Tokenizer]:
    """Whisper encoder and codec of a preset's sizes with the random weights of seed 0; lite's tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ears = Ears(random_whisper(config.ear.whisper), config.ear.whole_window)
        return ears, random_snac(config.codec), load_tokenizer(CHECKPOINTS / "lite")
