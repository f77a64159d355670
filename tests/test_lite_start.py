"""Embeddings that begin alike for codes that sound alike and for words that are spelled alike."""

from dataclasses import replace

import torch

from omni_lite.config import CodecConfig
from omni_lite.data import train_tokenizer
from omni_lite.litesnac import LiteSNAC
from omni_lite.model import OmniModel
from omni_lite.recipes.lite.start import start_from_codebooks, start_from_spelling
from tests.training import TINY


def test_codes_that_sound_alike_begin_alike():
    torch.manual_seed(0)
    model, codec = OmniModel(TINY), LiteSNAC(CodecConfig("lite", 16, 16)).eval()
    entries = codec.quantizer.quantizers[0].codebook.weight
    entries.data[3] = entries.data[5] * 2                # the codec looks at directions alone
    specials = model.audio_embed.weight[16:80].clone()
    start_from_codebooks(model, codec, kept=0.0)
    for weight in (model.audio_embed.weight, model.tts_adapter.head.weight):
        codes = weight[:16]                              # of stream 0
        torch.testing.assert_close(codes[3], codes[5])
        torch.testing.assert_close(codes @ codes.T, torch.nn.functional.cosine_similarity(
            entries[:, None], entries[None], dim=-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(model.audio_embed.weight[16:80], specials)


def test_words_that_are_spelled_alike_begin_alike():
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["station stations green"] * 9, 300)
    model = OmniModel(replace(TINY, vocab=replace(TINY.vocab, text_base=300), tts_reads_text=True))
    start_from_spelling(model, tokenizer, scale=0.5)
    weight = model.tts_adapter.text.weight
    ids = {word: tokenizer.token_to_id(f"\u0120{word}") for word in ("station", "stations", "green")}
    station, stations, green = (weight[ids[word]] for word in ids)
    assert torch.cosine_similarity(station, stations, 0) > torch.cosine_similarity(station, green, 0) + 0.4
    torch.testing.assert_close(station.norm(), torch.tensor(0.5 * 32**0.5))
    assert not weight[300:].any()                        # special tokens are not spelled
