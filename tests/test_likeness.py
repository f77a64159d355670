"""What Whisper makes of two sounds: the losses against sums by hand, and whom their gradients reach."""

import torch
from scipy.signal import resample_poly
from whisper.model import AudioEncoder

from omni_lite.audio import log_mel
from omni_lite.hear import Ears
from omni_lite.recipes.lite.likeness import SoundsAlike, to_ear_rate


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


def test_whisper_hears_as_in_training_what_it_hears_in_a_transcript():
    """The features under the loss are those of whisper's own encoder, with the silence after a sentence."""
    torch.manual_seed(0)
    ears = Ears(AudioEncoder(80, 1500, 24, 2, 2).eval())
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
