"""The ears: question-length windows change nothing but the cost; the adapter against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.model import AudioEncoder

from omni_lite import hear, precision
from omni_lite.config import LITE, MINI_OMNI, EarConfig
from omni_lite.hear import ASRAdapter, Ears, num_features
from omni_lite.interop.whisper import WHEEL, wheel_file
from omni_lite.load import load_ears

WIDTH, HEADS, LAYERS = 16, 2, 2


@pytest.fixture
def ears() -> Ears:
    torch.manual_seed(0)
    return Ears(AudioEncoder(80, 1500, WIDTH, HEADS, LAYERS))


def wave(seconds: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(round(seconds * 16_000), generator=generator)


# --- windows ---------------------------------------------------------------------------------------
def test_thirty_seconds_equal_whispers_own_forward(ears: Ears) -> None:
    wav_16k = wave(30)
    features, lengths = ears.features([wav_16k])
    with torch.no_grad():
        expected = ears.encoder(log_mel_spectrogram(pad_or_trim(wav_16k))[None])
    assert lengths.tolist() == [1500]
    assert torch.equal(features, expected)


def test_a_short_question_equals_a_whisper_built_for_its_length(ears: Ears) -> None:
    wav_16k = wave(1)
    T = 60  # (16,000 + 3,200) / 320
    short = AudioEncoder(80, T, WIDTH, HEADS, LAYERS)
    state = ears.encoder.state_dict()
    short.load_state_dict({**state, "positional_embedding": state["positional_embedding"][:T]})
    with torch.no_grad():
        expected = short(log_mel_spectrogram(F.pad(wav_16k, (0, 3200)))[None])
    assert torch.equal(ears.features([wav_16k])[0], expected)


@pytest.mark.parametrize(
    "samples", [1600, 16_000, 16_001, 16_159, 16_160, 33_333, 476_799, 476_960, 479_999, 480_000]
)
def test_num_features_is_what_comes_out(ears: Ears, samples: int) -> None:
    features, lengths = ears.features([wave(samples / 16_000)])
    assert features.shape == (1, num_features(samples), WIDTH)
    assert lengths.tolist() == [num_features(samples)]
    assert num_features(samples) == math.ceil(min(samples + 3200, 480_000) // 160 / 2) <= 1500


def test_more_than_thirty_seconds_are_refused_not_cut(ears: Ears) -> None:
    with pytest.raises(ValueError, match=r"30\.1 s is too long: cut it to 30 s"):
        ears.features([wave(30.1)])


# --- batches ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch_features", [1, 150, 100_000])
def test_a_batch_hears_what_each_alone_hears(
    ears: Ears, monkeypatch: pytest.MonkeyPatch, batch_features: int
) -> None:
    monkeypatch.setattr(hear, "BATCH_FEATURES", batch_features)
    seconds = [0.9, 0.1, 1.37, 0.505, 1.37, 0.51]  # odd and even numbers of columns
    waves = [wave(s, seed) * 3.0**seed for seed, s in enumerate(seconds)]  # own loudness, own mel floor
    features, lengths = ears.features(waves)
    assert features.shape == (6, max(lengths), WIDTH)
    for i, wav_16k in enumerate(waves):
        alone, length = ears.features([wav_16k])
        assert lengths[i] == length[0]
        torch.testing.assert_close(features[i, : lengths[i]], alone[0], atol=2e-5, rtol=1e-5)
        assert not features[i, lengths[i] :].any()


def test_bf16_stays_close(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_pays", lambda device: True)
    exact, _ = ears.features([wave(1), wave(0.7)])
    rough, _ = ears.features([wave(1), wave(0.7)], bf16=True)
    assert rough.dtype == torch.float32
    assert float(F.cosine_similarity(exact[0], rough[0], dim=-1).min()) > 0.99


def test_bf16_is_left_alone_where_it_does_not_pay(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without instructions for it a CPU takes a hundred times as long."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    exact, _ = ears.features([wave(1)])
    assert torch.equal(exact, ears.features([wave(1)], bf16=True)[0])
    with precision.mixed_precision(), torch.no_grad():
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.float32


def test_no_questions_give_no_features(ears: Ears) -> None:
    features, lengths = ears.features([])
    assert features.shape == (0, 0, WIDTH) and lengths.shape == (0,)


# --- frozen ----------------------------------------------------------------------------------------
def test_frozen_stays_frozen(ears: Ears) -> None:
    parent = nn.ModuleDict({"ears": ears, "adapter": nn.Linear(WIDTH, 4)})
    parent.train()
    assert parent["adapter"].training and not any(module.training for module in ears.modules())
    assert not any(parameter.requires_grad for parameter in ears.parameters())
    before = {name: tensor.clone() for name, tensor in ears.state_dict().items()}
    features, _ = ears.features([wave(0.5)])
    assert not features.requires_grad
    optimizer = torch.optim.SGD(parent.parameters(), lr=1.0)
    parent["adapter"](features).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in ears.state_dict().items())


@pytest.mark.skipif(wheel_file() is None, reason=f"needs `pip install {WHEEL}`")
def test_the_lite_presets_ears() -> None:
    ears = load_ears(LITE.ear.whisper)
    assert ears.width == LITE.ear.width and ears.n_mels == 80
    features, lengths = ears.features([wave(0.3), wave(0.8)])
    assert features.shape == (2, 50, 384) and lengths.tolist() == [25, 50]
    torch.testing.assert_close(features[0, :25], ears.features([wave(0.3)])[0][0], atol=1e-3, rtol=1e-3)


# --- adapter ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["mlp", "swiglu", "linear"])
@pytest.mark.parametrize(("T", "stack"), [(8, 4), (9, 4), (3, 4), (5, 1), (1, 2)])
def test_the_adapter_equals_plain_loops(kind: str, T: int, stack: int) -> None:
    torch.manual_seed(T)
    adapter = ASRAdapter(EarConfig("tiny.en", width=6, stack=stack, adapter=kind, hidden=10), width=7)
    features = torch.randn(2, T, 6)
    out = adapter(features)
    positions = adapter.num_positions(T)
    assert positions == math.ceil(T / stack) and out.shape == (2, positions, 7)
    for b in range(2):
        for p in range(positions):
            group = [features[b, t] if t < T else torch.zeros(6) for t in range(p * stack, (p + 1) * stack)]
            x = torch.cat(group)
            if kind == "mlp":
                x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
                expected = adapter.proj(F.gelu(adapter.fc(x)))
            elif kind == "swiglu":
                gate = adapter.fc_1(x)
                expected = adapter.proj(gate * torch.sigmoid(gate) * adapter.fc_2(x))
            else:
                expected = adapter.proj(x)
            torch.testing.assert_close(out[b, p], expected, atol=1e-5, rtol=1e-5)


def test_the_convolving_adapter_hears_its_neighbours_but_no_padding() -> None:
    torch.manual_seed(0)
    adapter = ASRAdapter(EarConfig("tiny.en", width=6, stack=2, adapter="conv", hidden=10, blocks=2), width=7)
    clips = [torch.randn(1, T, 6) for T in (40, 25, 2)]
    padded = torch.zeros(3, 40, 6)
    for row, clip in zip(padded, clips, strict=True):
        row[: clip.shape[1]] = clip[0]
    out = adapter(padded, torch.tensor([20, 13, 1]))
    for row, clip, n in zip(out, clips, (20, 13, 1), strict=True):
        torch.testing.assert_close(row[:n], adapter(clip)[0])
    changed = clips[0].clone()
    changed[0, 20] += 1                                                # position 10 of 20
    far = (adapter(changed) - adapter(clips[0]))[0].abs().amax(dim=1) > 0
    assert far.nonzero().flatten().tolist() == list(range(4, 17))      # two blocks of three to each side


def test_the_released_adapters_names_and_sizes() -> None:
    with torch.device("meta"):
        adapter = ASRAdapter(MINI_OMNI.ear, width=896)
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.state_dict().items()}
    assert shapes == {"fc_1.weight": (4864, 768), "fc_2.weight": (4864, 768), "proj.weight": (896, 4864)}


def test_the_lite_adapter_gives_12_and_a_half_positions_a_second() -> None:
    adapter = ASRAdapter(LITE.ear, width=LITE.trunk["hidden_size"])
    assert adapter(torch.randn(1, 100, 384)).shape == (1, 25, 256)


def test_an_unknown_adapter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"There is no adapter 'lstm': choose .*\.$"):
        ASRAdapter(EarConfig("tiny.en", width=6, stack=1, adapter="lstm", hidden=10), width=7)


def test_the_whole_window_is_whispers_own_and_cut_as_the_release_cuts() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(n_mels=80, n_ctx=1500, n_state=8, n_head=2, n_layer=1).eval()
    ears = Ears(encoder, whole_window=True)
    wave = 0.1 * torch.randn(16_000)
    mel = log_mel_spectrogram(pad_or_trim(wave))
    with torch.no_grad():
        torch.testing.assert_close(ears.hear(wave), encoder(mel[None])[:, :51])
    assert [ears.num_features(n) for n in (1600, 16_000, 64_319, 64_320, 480_000)] == [6, 51, 201, 201, 1500]
    assert Ears(encoder).num_features(16_000) == 60
