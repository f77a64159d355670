"""Initialisation of the voice before phase 1b: codes from the codebooks, words from their spelling."""

import math

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from omni_lite.litesnac import LiteSNAC
from omni_lite.model import OmniModel
from omni_lite.vocab import FRAME_ORDER


@torch.no_grad()
def start_from_codebooks(model: OmniModel, codec: LiteSNAC, scale: float = 1.0, kept: float = 0.3) -> None:
    """Initialise the embeddings and heads of codes so that similar codes start similar.

    Each stream gets a random projection of the codec's codebook, one for its embeddings and one for its head. Training
    on one code then also improves its neighbours: with 1,024 codes a stream and a few hundred examples of each, the
    loss falls about twice as fast.

    scale: length of an embedding;  kept: share of the random initialisation, which tells neighbours apart
    """
    assert model.tts_adapter is not None, "the model has no TTS adapter"
    vocab, D = model.config.vocab, model.audio_embed.embedding_dim
    for q, first in enumerate(model.bands[:, 0].tolist()):
        entries = nn.functional.normalize(codec.quantizer.quantizers[FRAME_ORDER[q][0]].codebook.weight, dim=1)
        for weight, start in ((model.audio_embed.weight, first), (model.tts_adapter.head.weight, q * vocab.audio_size)):
            directions = torch.linalg.qr(torch.randn(D, entries.shape[1]))[0].T        # (C, D), orthonormal rows
            codes = weight[start : start + vocab.codebook]
            codes.copy_(kept * codes + scale * entries @ directions)


@torch.no_grad()
def start_from_spelling(model: OmniModel, tokenizer: Tokenizer, scale: float = 0.5, letters: int = 10) -> None:
    """Initialise the TTS adapter's text embeddings so that words with similar spelling start similar.

    A token id says nothing about its sound. Each embedding is a sum of random directions: one for every n-gram of one
    to three letters, and one for the n-gram at its place among the first `letters`. Training on "station" then also
    improves "stations".

    scale: length of an embedding, relative to the square root of its width
    """
    assert model.tts_adapter is not None and model.tts_adapter.text is not None, "the TTS adapter does not read text"
    weight = model.tts_adapter.text.weight
    directions: dict[tuple[str, int], Tensor] = {}

    def direction(letters_at: tuple[str, int]) -> Tensor:
        if letters_at not in directions:
            directions[letters_at] = torch.randn(weight.shape[1])
        return directions[letters_at]

    for i in range(min(tokenizer.get_vocab_size(), model.config.vocab.text_base)):
        name = (tokenizer.id_to_token(i) or "").lower()
        parts = [(name[at : at + n], at) for n in (1, 2, 3) for at in range(len(name) - n + 1)]
        placed = [direction((part, at if at < letters else -1)) + direction((part, -1)) for part, at in parts]
        if placed:
            weight[i] = scale * math.sqrt(weight.shape[1]) * nn.functional.normalize(torch.stack(placed).sum(0), dim=0)
