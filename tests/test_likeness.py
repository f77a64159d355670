"""What Whisper makes of two sounds: the losses against sums by hand, and whom their gradients reach."""

import itertools

import pytest
import torch
from scipy.signal import resample_poly
from torch import nn
from whisper.model import AudioEncoder, ModelDimensions, Whisper

from omni_lite.audio import log_mel
from omni_lite.hear import Ears
from omni_lite.likeness import SoundsAlike, WrittenAlike, starts_of, to_ear_rate


def small_whisper() -> Whisper:
    """An English Whisper of two narrow blocks, whose decoder doubts."""
    torch.manual_seed(0)
    whisper = Whisper(ModelDimensions(80, 1500, 24, 2, 2, n_vocab=51864, n_text_ctx=448, n_text_state=24,
                                      n_text_head=2, n_text_layer=2)).eval()
    nn.init.normal_(whisper.decoder.positional_embedding)
    return whisper


def test_two_sounds_are_apart_for_whisper_and_the_gradient_is_of_the_first():
    torch.manual_seed(0)
    ears = Ears(AudioEncoder(80, 1500, 24, 2, 2))
    alike = SoundsAlike(ears)
    wav, other = 0.1 * torch.randn(2, 3, 1, 12_000)
    assert alike(wav, wav) == 0 and not list(alike.parameters())
    wav.requires_grad_(), other.requires_grad_()
    alike(wav, other).backward()
    assert wav.grad.isfinite().all() and wav.grad.abs().sum() > 0 and other.grad is None
    assert all(p.grad is None for p in ears.parameters())
    mel = torch.randn(2, 80, 40)
    layers = list(ears.layers(mel))
    assert torch.equal(layers[-1], ears(mel)) and len(layers) == 3


def test_what_whisper_would_write_is_compared_at_the_words_and_the_end_alone():
    """KL of whole distributions, summed by hand for each text by itself."""
    whisper, texts = small_whisper(), ["It is three.", " It is a hundred and twenty.", ""]
    written = WrittenAlike(whisper)
    heard, wanted = torch.randn(2, 3, 9, 24)
    sums, guesses = 0.0, 0
    for i, text in enumerate(texts):
        words = written.tokenizer.encode(" " + text.strip())
        read = torch.tensor([[*written.tokenizer.sot_sequence_including_notimestamps, *words]])
        guesses_of = [whisper.decoder(read, one[i : i + 1])[0, -len(words) - 1 :] for one in (heard, wanted)]
        here, there = (one.softmax(-1) for one in guesses_of)
        sums += float((there * (there / here).log()).sum())
        guesses += len(words) + 1
    torch.testing.assert_close(written(heard, wanted, texts), torch.tensor(sums / guesses), rtol=1e-5, atol=1e-6)
    assert written(wanted, wanted, texts).abs() < 1e-5 and not list(written.parameters())
    heard.requires_grad_(), wanted.requires_grad_()
    written(heard, wanted, texts).backward()
    assert heard.grad.abs().sum() > 0 and wanted.grad is None


def test_words_are_doubted_as_much_as_their_tokens_and_follow_each_other():
    whisper, texts = small_whisper(), ["It is thirty-three.", "Yes."]
    written, heard = WrittenAlike(whisper), torch.randn(2, 120, 24)
    found = written.words(heard, texts, [20, 28])
    assert [[word.text for word in one] for one in found] == [["It", "is", "thirty", "-three", ""], ["Yes", ""]]
    for i, (text, words, frames) in enumerate(zip(texts, found, (20, 28), strict=True)):
        ids = written.tokenizer.encode(" " + text)
        start = list(written.tokenizer.sot_sequence_including_notimestamps)
        guesses = whisper.decoder(torch.tensor([[*start, *ids]]), heard[i : i + 1])[0].log_softmax(-1)
        nats = [-guesses[len(start) - 1 + k, token].item() for k, token in enumerate([*ids, written.tokenizer.eot])]
        stop = written.tokenizer.encode(".")[0]
        by_hand = sum(nats) - sum(n for n, token in zip(nats, ids, strict=False) if token == stop)
        assert sum(word.nats for word in words) == pytest.approx(by_hand, rel=1e-4)
        assert words[0].first == 0 and words[-1].end == frames
        assert all(a.first <= a.end <= b.first + 1e-9 for a, b in itertools.pairwise(words))


def test_a_word_is_where_the_decoder_looks_for_it():
    """Attention that walks over the features: each token begins where the walk reaches it."""
    look = torch.full((2, 6, 40), -4.0)
    for token, (first, end) in enumerate([(0, 1), (0, 2), (0, 10), (10, 22), (22, 30), (30, 40)]):
        look[:, token, first:end] = 4.0
    starts = starts_of(look, 2)
    assert starts[0] == 0 and abs(starts[1] - 10) <= 2 and abs(starts[2] - 22) <= 2 and abs(starts[3] - 30) <= 2


def test_whisper_hears_as_in_training_what_it_hears_in_a_transcript():
    """The features under both losses are those of whisper's own encoder, with the silence after a sentence."""
    ears = Ears(small_whisper().encoder)
    alike, wav = SoundsAlike(ears, after=8000), 0.1 * torch.randn(2, 1, 24_000)
    halfway, end = alike.seen(wav)
    mel = log_mel(torch.cat([to_ear_rate(wav[:, 0]), torch.zeros(2, 8000)], 1), 80)
    torch.testing.assert_close(end, ears(mel))
    assert halfway.shape == end.shape == (2, 75, 24)


def test_the_rate_of_the_ears_is_reached_with_gradients_as_scipy_does_without():
    wav = torch.sin(torch.arange(24_000) / 9) * torch.hann_window(24_000)
    got = to_ear_rate(wav[None])[0]
    assert got.shape == (16_000,)
    torch.testing.assert_close(got, torch.from_numpy(resample_poly(wav.numpy(), 2, 3)), atol=2e-3, rtol=0)
