"""The codecs: the order of the seven tokens, the quantizer, training, and streaming equal to offline."""

from collections.abc import Callable

import pytest
import snac
import torch
from torch import Tensor
from torch.nn import functional as F

from omni_lite.config import LITE, MINI_OMNI, CodecConfig
from omni_lite.interop.snac import Snac
from omni_lite.litesnac import LiteSNAC, codec
from omni_lite.load import build_codec
from omni_lite.recipes.lite.codec import codec_loss, log_mel_distance
from omni_lite.recipes.lite.takes import encode_takes
from omni_lite.vocab import FRAME_SAMPLES

TINY = CodecConfig(kind="lite", codebook=32, width=16, codebook_dim=4)


def tiny_lite() -> LiteSNAC:
    torch.manual_seed(0)
    return LiteSNAC(TINY).eval()


def tiny_snac(noise: bool = True, depthwise: bool = True, rates: tuple[int, ...] = (2, 4)) -> Snac:
    torch.manual_seed(0)
    model = snac.SNAC(
        sampling_rate=24_000,
        encoder_dim=4,
        encoder_rates=list(rates),
        decoder_dim=16,
        decoder_rates=list(reversed(rates)),
        attn_window_size=None,
        codebook_size=32,
        codebook_dim=4,
        vq_strides=[4, 2, 1],
        noise=noise,
        depthwise=depthwise,
    )
    return Snac(model).eval()


def random_codes(frames: int, batch: int = 2, codebook: int = 32) -> Tensor:
    return torch.randint(codebook, (batch, 7, frames), generator=torch.Generator().manual_seed(frames))


def tone(samples: int, batch: int = 2) -> Tensor:
    """Two wobbling tones, (B, 1, N): something that is easy to learn."""
    t = torch.arange(samples) / 24_000
    pitches = torch.linspace(200, 400, batch)[:, None]
    return (0.3 * torch.sin(2 * torch.pi * pitches * t) * (1 + torch.sin(40 * t)) / 2)[:, None]


# --- the order of the seven tokens --------------------------------------------------------------


def test_frames_follow_the_official_order() -> None:
    """[c0, c1a, c2a, c2b, c1b, c2c, c2d], for two frames numbered by hand."""
    coarse = torch.tensor([[10, 11]])
    middle = torch.tensor([[20, 21, 22, 23]])
    fine = torch.tensor([[30, 31, 32, 33, 34, 35, 36, 37]])
    frames = torch.tensor([[10, 20, 30, 31, 21, 32, 33], [11, 22, 34, 35, 23, 36, 37]]).T[None]
    assert torch.equal(codec.frames_from_levels([coarse, middle, fine]), frames)
    for level, expected in zip(codec.levels_from_frames(frames), [coarse, middle, fine], strict=True):
        assert torch.equal(level, expected)


def test_frame_order_round_trip() -> None:
    codes = random_codes(5, batch=3)
    levels = codec.levels_from_frames(codes)
    assert [tuple(level.shape) for level in levels] == [(3, 5), (3, 10), (3, 20)]
    assert torch.equal(codec.frames_from_levels(levels), codes)


# --- spectra ------------------------------------------------------------------------------------


def test_inverse_stft_undoes_the_stft_up_to_the_edges() -> None:
    wav = torch.randn(2, 1, 2048, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(codec.WINDOW)
    padded = torch.nn.functional.pad(wav.squeeze(1), (codec.TRIM, codec.TRIM))
    spectrum = torch.stft(padded, codec.WINDOW, codec.HOP, window=window, center=False, return_complex=True)
    assert spectrum.shape[-1] == 2048 // codec.HOP
    torch.testing.assert_close(codec.inverse_stft(spectrum.transpose(1, 2), window), wav, atol=1e-5, rtol=0)


# --- LiteSNAC in training -----------------------------------------------------------------------


def test_quantize_equals_the_package() -> None:
    torch.manual_seed(0)
    quantizer = codec.ResidualVectorQuantize(16, 32, 4, vq_strides=[4, 2, 1])
    latents = torch.randn(2, 16, 12)
    expected, expected_codes = quantizer(latents)
    with torch.autocast("cpu", torch.bfloat16):  # must not reach the search
        quantized = codec.quantize(quantizer, latents)
    torch.testing.assert_close(quantized.latents, expected)
    for codes, wanted in zip(quantized.codes, expected_codes, strict=True):
        assert torch.equal(codes, wanted)


def test_gradient_reaches_every_parameter() -> None:
    """The package alone would leave the three codebooks without any."""
    model = tiny_lite().train()
    wav = tone(4096)
    reconstruction, quantized = model(wav)
    codec_loss(reconstruction, wav, quantized)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"no gradient for {name}"


@torch.no_grad()
def test_the_decoder_hears_as_many_levels_as_are_kept() -> None:
    model = tiny_lite()
    wav = tone(4096)[:1].repeat(3, 1, 1)
    whole, quantized = model(wav)
    some, _ = model(wav, num_levels=torch.tensor([1, 2, 3]))
    torch.testing.assert_close(sum(quantized.levels), quantized.latents)
    for row in range(3):
        heard = sum(quantized.levels[: row + 1])[row:][:1]
        torch.testing.assert_close(some[row:][:1], model.decoder(heard.transpose(1, 2))[..., :4096])
    torch.testing.assert_close(some[2], whole[2])


def test_wrong_entries_are_heard_but_neither_found_nor_passed_on() -> None:
    torch.manual_seed(0)
    quantizer = codec.ResidualVectorQuantize(16, 32, 4, vq_strides=[4, 2, 1])
    latents = torch.randn(2, 16, 400)
    right, slips = codec.quantize(quantizer, latents), codec.quantize(quantizer, latents, wrong=(0, 0.25, 0))
    for one, other in zip(right.codes, slips.codes, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(slips.latents, right.latents)
    torch.testing.assert_close(slips.levels[0], right.levels[0])
    differ = (slips.levels[1] != right.levels[1]).any(1).float().mean()
    assert 0.15 < differ < 0.35
    torch.testing.assert_close(slips.levels[2], right.levels[2])


def test_a_few_steps_lower_the_loss() -> None:
    model = tiny_lite().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    wav = tone(4096)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):  # as `train.py` runs it
            reconstruction, quantized = model(wav)
        loss = codec_loss(reconstruction, wav, quantized)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses


def test_loss_is_zero_for_the_same_sound_and_grows_with_difference() -> None:
    wav = tone(4096)
    assert log_mel_distance(wav, wav) == 0
    slightly, far = log_mel_distance(1.1 * wav, wav), log_mel_distance(2 * wav, wav)
    assert 0 < slightly < far


def test_training_keeps_the_length_of_the_wave() -> None:
    reconstruction, _ = tiny_lite()(tone(3000))
    assert reconstruction.shape == (2, 1, 3000) and reconstruction.dtype == torch.float32


def test_reseed_moves_only_unused_codes_to_latents() -> None:
    model = tiny_lite().train()
    for _ in range(3):
        _, quantized = model(tone(8192))
    before = [level.codebook.weight.detach().clone() for level in model.quantizer.quantizers]
    assert model.reseed_unused_codes(quantized, idle_steps=4) == 0
    moved = model.reseed_unused_codes(quantized, idle_steps=3)
    assert moved > 0
    changed = 0
    for level, old, codes, latents in zip(
        model.quantizer.quantizers, before, quantized.codes, quantized.projected, strict=True
    ):
        rows = (level.codebook.weight != old).any(dim=1)
        assert not rows[codes.unique()].any(), "a code in use was moved"
        assert (torch.cdist(level.codebook.weight[rows], latents).amin(dim=1) < 1e-3).all()
        changed += int(rows.sum())
    assert changed == moved
    assert model.reseed_unused_codes(quantized, idle_steps=3) < moved  # the moved ones count as fresh


def test_only_training_counts_idle_codes_and_none_are_saved() -> None:
    model = tiny_lite()
    model(tone(2048))
    assert model.idle.sum() == 0
    assert not any("idle" in key or "window" in key or "mel" in key for key in model.state_dict())


# --- both codecs, offline -----------------------------------------------------------------------


def test_published_sizes() -> None:
    lite, full = build_codec(LITE.codec), build_codec(MINI_OMNI.codec)
    assert 4.5e6 < sum(p.numel() for p in lite.parameters()) < 6e6
    assert 19e6 < sum(p.numel() for p in full.parameters()) < 21e6  # "19.8 M", SNAC's README
    for model, codebook in ((lite, 1024), (full, 4096)):
        assert (model.sample_rate, model.frame_samples, model.codebook_size) == (24_000, 2048, codebook)
    assert full.decode(random_codes(1, batch=1)).shape == (1, 1, 2048)


def test_takes_are_the_same_sound_begun_later() -> None:
    codec = tiny_lite()
    torch.manual_seed(0)
    wave = 0.3 * torch.randn(14 * FRAME_SAMPLES + 300)
    takes = encode_takes(codec, wave)
    assert [take.shape[1] for take in takes] == [15, 15, 15, 15]
    for k, take in enumerate(takes):
        alone = codec.encode(F.pad(wave, (512 * k, 0))[None, None])[0]
        torch.testing.assert_close(take[:, 4:11], alone[:, 4:11])   # where the encoder sees neither end
    late = encode_takes(codec, wave[: 9 * FRAME_SAMPLES - 100])
    assert [take.shape[1] for take in late] == [9, 10, 10, 10]


def test_encode_pads_the_last_frame() -> None:
    for model in (tiny_lite(), tiny_snac()):
        wav = tone(model.frame_samples + 1)
        codes = model.encode(wav)
        assert codes.shape == (2, 7, 2) and codes.dtype == torch.int64
        assert 0 <= codes.min() and codes.max() < 32
        assert model.decode(codes).shape == (2, 1, 2 * model.frame_samples)
        assert model.decode(codes[..., :0]).shape == (2, 1, 0)


def test_snac_is_the_package_when_the_noise_is(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(3)
    levels = codec.levels_from_frames(codes)
    quiet = tiny_snac(noise=False)
    torch.testing.assert_close(quiet.decode(codes), quiet.model.decode(levels))

    def ones(*shape, **_: object) -> Tensor:
        return torch.ones(shape[0] if isinstance(shape[0], tuple) else shape)

    noisy = tiny_snac()
    with_random_noise = noisy.decode(codes)
    monkeypatch.setattr(torch, "randn", ones)
    torch.testing.assert_close(noisy.decode(codes), noisy.model.decode(levels))
    assert (noisy.decode(codes) - with_random_noise).abs().max() > 1e-3


def test_noise_depends_on_the_seed_alone() -> None:
    model, codes = tiny_snac(), random_codes(4)
    wav = model.decode(codes)
    torch.manual_seed(123)
    assert torch.equal(model.decode(codes), wav)
    assert not torch.allclose(model.decode(codes, seed=1), wav, atol=1e-3)
    torch.testing.assert_close(model.decode(codes[1:]), wav[1:])  # a row sounds alike alone and in a batch


# --- streaming ----------------------------------------------------------------------------------

CODECS: dict[str, Callable[[], LiteSNAC | Snac]] = {
    "lite": tiny_lite,
    "snac": tiny_snac,
    "snac, full convolutions": lambda: tiny_snac(depthwise=False),
    "snac, no noise": lambda: tiny_snac(noise=False),
    "snac, odd strides": lambda: tiny_snac(rates=(3, 2)),
}


@pytest.mark.parametrize("name", CODECS)
def test_streaming_equals_offline(name: str) -> None:
    model = CODECS[name]()
    for chunks in ([1], [1, 1], [3], [1] * 12, [12], [5, 0, 1, 2, 4]):
        codes = random_codes(sum(chunks))
        stream = model.stream(seed=3)
        wavs = [stream.push(part) for part in codes.split(chunks, dim=-1)]
        wavs += [stream.flush(), stream.flush()]
        assert wavs[-1].shape == (2, 1, 0)
        expected = model.decode(codes, seed=3)
        torch.testing.assert_close(torch.cat(wavs, dim=-1), expected, atol=1e-5, rtol=0)


def test_lite_speaks_at_most_one_frame_late() -> None:
    """Frames from k + 2 on cannot change a sample of frames 0..k; frame k + 1 does reach back to frame k."""
    model, codes = tiny_lite(), random_codes(6)
    wav = model.decode(codes)
    for k in range(4):
        later = codes.clone()
        later[..., k + 2 :] = (later[..., k + 2 :] + 7) % 32
        end = (k + 1) * 2048
        assert torch.equal(model.decode(later)[..., :end], wav[..., :end])
        assert not torch.equal(model.decode(later)[..., end : end + 2048], wav[..., end : end + 2048])
    stream = model.stream()
    emitted = [stream.push(codes[..., t : t + 1]).shape[-1] for t in range(6)] + [stream.flush().shape[-1]]
    assert emitted == [128] + 5 * [2048] + [1920]


@pytest.mark.parametrize("name", ["lite", "snac"])
def test_state_stays_bounded(name: str) -> None:
    model = CODECS[name]()
    stream = model.stream()

    def kept_bytes() -> int:
        kept = [getattr(stage, "kept", None) for stage in stream.stages]
        return sum(tensor.untyped_storage().nbytes() for tensor in kept if tensor is not None)

    sizes = []
    for _ in range(40):
        stream.push(random_codes(1))
        sizes.append(kept_bytes())
    assert sizes[-1] > 0 and len(set(sizes[20:])) == 1
    assert stream.push(random_codes(9)).shape[-1] == 9 * model.frame_samples
    assert kept_bytes() == sizes[-1]


def test_an_unused_stream_ends_in_silence() -> None:
    assert tiny_lite().stream().flush().shape == (1, 1, 0)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_lite, tiny_snac])
def test_bad_codes_are_refused_with_one_sentence(make: Callable[[], LiteSNAC | Snac]) -> None:
    model = make()
    special = random_codes(4)
    special[1, 3, 2] = 33
    for decode in (model.decode, model.stream().push):
        with pytest.raises(ValueError, match=r"in 0\.\.31, got 33 in stream 3: remove the special tokens"):
            decode(special)
        with pytest.raises(ValueError, match="got -1 in stream 0"):
            decode(torch.full((1, 7, 1), -1))
        with pytest.raises(ValueError, match=r"shape \(B, 7, T\), got \(2, 8, 4\)"):
            decode(torch.zeros(2, 8, 4, dtype=torch.int64))
        with pytest.raises(ValueError, match="must be int64, got torch.float32"):
            decode(torch.zeros(2, 7, 4))


@pytest.mark.parametrize("make", [tiny_lite, tiny_snac])
def test_bad_waves_are_refused_with_one_sentence(make: Callable[[], LiteSNAC | Snac]) -> None:
    model = make()
    with pytest.raises(ValueError, match=r"shape \(B, 1, N\)"):
        model.encode(torch.zeros(2048))
    with pytest.raises(ValueError, match="N > 0"):
        model.encode(torch.zeros(1, 1, 0))
    with pytest.raises(ValueError, match="float32 in -1..1, got torch.int16"):
        model.encode(torch.zeros(1, 1, 2048, dtype=torch.int16))
    with pytest.raises(ValueError, match="NaN"):
        model.encode(torch.full((1, 1, 2048), torch.nan))


def test_a_stream_speaks_one_utterance_of_one_batch() -> None:
    stream = tiny_lite().stream()
    stream.push(random_codes(1, batch=2))
    with pytest.raises(ValueError, match="2 sounds at a time, got codes for 3"):
        stream.push(random_codes(1, batch=3))
    stream.flush()
    with pytest.raises(ValueError, match="open a new one"):
        stream.push(random_codes(1, batch=2))


def test_codecs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no attention, got strides"):
        Snac(snac.SNAC(encoder_dim=4, encoder_rates=[2], decoder_dim=4, decoder_rates=[2]))
    with pytest.raises(ValueError, match='"lite" or "snac", not \'mimi\''):
        build_codec(CodecConfig(kind="mimi", codebook=8))
