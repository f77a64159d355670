"""The command line and the assistant, with a tiny random model in the place of the trained one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from omni_lite import assistant as room
from omni_lite.__main__ import main
from omni_lite.assistant import Assistant, load_model
from omni_lite.codec import build_codec
from omni_lite.config import LITE, CodecConfig
from omni_lite.data import train_tokenizer
from omni_lite.model import OmniModel
from omni_lite.recipe import save_half, save_phase
from omni_lite.train import LITE_PHASES
from omni_lite.vocab import Vocab

TINY = replace(
    LITE,
    vocab=Vocab(text_base=300, codebook=32),
    codec=CodecConfig(kind="lite", codebook=32, width=16),
    ear=replace(LITE.ear, hidden=16),
    trunk=LITE.trunk | dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1),
    tts_blocks=1,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder of presets holding one tiny untrained "lite"."""
    folder = tmp_path_factory.mktemp("checkpoints")
    lite = folder / "lite"
    lite.mkdir()
    torch.manual_seed(0)
    model = OmniModel(TINY)
    (lite / "config.json").write_text(json.dumps(TINY.to_dict()))
    save_phase(model, LITE_PHASES[-1], lite)
    save_half(lite / "codec.safetensors", build_codec(TINY.codec))
    train_tokenizer(["What is your name?", "My name is Omni."], 300).save(str(lite / "tokenizer.json"))
    return folder


@pytest.fixture
def talk(checkpoints, monkeypatch, tmp_path, capsys):
    """Run `talk` as the command line would; returns status, stdout, stderr."""
    monkeypatch.setattr(room, "CHECKPOINTS", checkpoints)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        status = main(["talk", *args])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


@pytest.fixture
def question(tmp_path):
    """A second of coloured noise as a stereo wav of an odd rate."""
    path = tmp_path / "q.wav"
    noise = np.random.default_rng(0).standard_normal((22_050, 2)) * 0.1
    soundfile.write(path, noise, 22_050)
    return path


KEYS = {"file", "heard", "text", "audio_path", "audio_s", "first_audio_ms", "total_ms", "rtf", "steps", "peak_rss_mb"}


def test_json_is_one_object_and_nothing_else(talk, question, tmp_path):
    status, out, _ = talk(str(question), "--json", "--out", str(tmp_path / "a.wav"))
    (line,) = out.splitlines()
    record = json.loads(line)
    assert status == 0 and set(record) == KEYS and record["file"] == str(question)
    if record["audio_path"]:
        wave, rate = soundfile.read(tmp_path / "a.wav")
        assert rate == 24_000 and len(wave) == pytest.approx(record["audio_s"] * 24_000, abs=24)


def test_several_questions_fill_a_folder(talk, question, tmp_path):
    other = tmp_path / "other.flac"
    other.write_bytes(question.read_bytes())
    status, out, _ = talk(str(question), str(other), "--json", "--out", str(tmp_path / "answers"))
    records = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [r["file"] for r in records] == [str(question), str(other)]
    paths = [r["audio_path"] for r in records if r["audio_path"]]
    assert len(set(paths)) == len(paths)


def test_words_and_frames_are_shown(talk, question):
    status, out, _ = talk(str(question), "--no-batch-parallel")
    assert status == 0 and "heard" in out and "answered" in out and " ms" in out


@pytest.mark.parametrize("task", ["T1T2", "T1A2"])
def test_a_text_in_quotes(talk, task):
    status, out, _ = talk("What is your name?", "--task", task, "--json")
    assert status == 0 and json.loads(out)["heard"] is None


def test_a_written_answer_has_no_sound(talk, question):
    _, out, _ = talk(str(question), "--task", "A1T2", "--json")
    record = json.loads(out)
    assert record["audio_path"] is None and record["first_audio_ms"] is None and record["rtf"] is None


@pytest.mark.parametrize("args, sentence", [
    (["nothing.wav"], "There is no audio file nothing.wav"),
    (["", "--task", "T1T2"], "The question is empty"),
    (["x" * 1001, "--task", "T1T2"], "at most 1000"),
    (["q.wav", "--preset", "huge"], "no model folder"),
    (["q.wav", "--device", "abacus"], "'abacus' is not available here"),
    (["q.wav", "--out", "answer.mp3"], "must end in .wav"),
    (["q.wav", "q.wav", "--out", "answer.wav"], "give a folder"),
    (["short.wav"], "short.wav lasts"),
])
def test_what_goes_wrong_is_one_sentence(talk, question, tmp_path, args, sentence):
    soundfile.write(tmp_path / "short.wav", np.ones(100) * 0.1, 16_000)
    status, out, err = talk(*args)
    assert status == 1 and out.count("\n") <= 1 and sentence in err and len(err.strip().splitlines()) == 1


def test_a_truncated_weight_file_is_named(checkpoints, tmp_path):
    import shutil

    broken = tmp_path / "lite"
    shutil.copytree(checkpoints / "lite", broken)
    path = broken / "phase3-lm.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="phase3-lm.safetensors"):
        load_model(broken)
    path.unlink()
    with pytest.raises(ValueError, match="lacks text_embed|lacks trunk"):
        load_model(broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json"):
        load_model(broken)


def test_answers_repeat_under_a_seed_and_stop_when_closed(checkpoints, monkeypatch):
    monkeypatch.setattr(room, "CHECKPOINTS", checkpoints)
    assistant = Assistant.load()
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    one, two = (assistant.answer(wave, seed=5, limit=6) for _ in range(2))
    assert one.text == two.text and np.array_equal(one.wav_24k, two.wav_24k)
    stream = assistant.ask(wave, limit=6)
    next(stream)
    stream.close()
    with pytest.raises(ValueError, match="as text"):
        next(assistant.ask(wave, "T1T2"))
