"""Noise in the past, masks over features, hidden text: what they change and what they leave alone."""

from dataclasses import replace

import pytest
import torch

from omni_lite.data import batches, gather
from omni_lite.recipes.lite.items import LiteItem
from omni_lite.recipes.transforms import HideText, Mask, Noise, masked, with_noise, without_text
from omni_lite.streams import Task
from tests.training import VOCAB, small_corpus


@pytest.fixture
def corpus(tmp_path):
    return small_corpus(tmp_path)


def test_noise_changes_what_is_read_and_never_what_is_learnt(corpus):
    heard = next(batches(corpus.draw({"T1A2": 1.0}), VOCAB, 2, corpus.store, 300))
    torch.manual_seed(0)
    noisy = with_noise(heard, VOCAB, 0.5)
    codes = heard.batch.audio_in < VOCAB.codebook
    changed = noisy.batch.audio_in != heard.batch.audio_in
    assert 0.3 < changed[codes].float().mean() < 0.6 and not changed[~codes].any()
    assert (noisy.batch.audio_in[codes] < VOCAB.codebook).all()
    assert torch.equal(noisy.batch.audio_target, heard.batch.audio_target)
    assert torch.equal(noisy.batch.text_in, heard.batch.text_in)
    assert with_noise(heard, VOCAB, 0.0) is heard
    torch.manual_seed(0)
    assert torch.equal(Noise(0.5)(heard, VOCAB).batch.audio_in, noisy.batch.audio_in)


def test_masks_blur_whole_clips_and_no_padding():
    torch.manual_seed(0)
    lengths = torch.tensor([9, 20, 14, 3, 20, 17])
    inside = torch.arange(20) < lengths[:, None]
    features = torch.randn(6, 20, 4) * inside[..., None]
    changed = masked(features, lengths, 1.0) != features
    assert changed[inside].float().mean() > 0.9 and not changed[~inside].any()
    some = (masked(features, lengths, 0.5) != features).flatten(1).any(1)
    assert 0 < some.sum() < len(some)
    assert masked(features, lengths, 0.0) is features


def test_a_batch_that_hears_nothing_has_nothing_to_mask(corpus):
    written = next(batches(corpus.draw({"T1T2": 1.0}), VOCAB, 2, corpus.store, 300))
    assert Mask(1.0)(written, VOCAB) is written and HideText(1.0)(written, VOCAB) is written
    heard = next(batches(corpus.draw({"A1T1": 1.0}), VOCAB, 2, corpus.store, 300))
    torch.manual_seed(0)
    blurred = Mask(1.0)(heard, VOCAB)
    assert not torch.equal(blurred.features, heard.features)
    assert replace(blurred, features=heard.features) == heard


def test_a_share_of_the_text_streams_is_hidden_whole():
    rows = torch.arange(20).expand(400, 20)
    assert without_text(rows, VOCAB, 0.0) is rows
    torch.manual_seed(0)
    silent = without_text(rows, VOCAB, 0.25) == VOCAB.pad_t
    assert torch.equal(silent.any(1), silent.all(1)) and 60 < int(silent.all(1).sum()) < 140


def test_hidden_text_is_that_of_the_sequences_that_speak(corpus):
    codes = torch.zeros(7, 2, dtype=torch.long)
    items = [LiteItem(Task.T1T2, (1,), (2,)), LiteItem(Task.T1A2, (3,), (4,), codes=codes)]
    heard = gather(items, [item.lay_out(VOCAB, 0) for item in items], VOCAB, None)
    hidden = HideText(1.0)(heard, VOCAB)
    assert hidden.voice_text.shape == (1, heard.batch.text_in.shape[1]) and (hidden.voice_text == VOCAB.pad_t).all()
    assert torch.equal(HideText(0.0)(heard, VOCAB).voice_text, heard.batch.text_in[1:])
    assert hidden.batch is heard.batch                   # the trunk reads it all the same
