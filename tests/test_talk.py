"""The command line and the assistant, with a tiny random model in the place of the trained one."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
import soundfile
import soxr
import torch
import whisper

from omni_lite import load as room
from omni_lite.assistant import GUIDED, SAMPLING
from omni_lite.cli import main
from omni_lite.config import LITE, MINI_OMNI, CodecConfig
from omni_lite.data import Row, train_tokenizer
from omni_lite.fast import FastDecoder, faster, hears_in_bf16, quick
from omni_lite.folder import LAST_PHASE, LINEAGE, ROOT, load_model
from omni_lite.generate import Sampling
from omni_lite.hear import Ears
from omni_lite.interop.snac import SNAC_24KHZ
from omni_lite.interop.whisper import load_whisper
from omni_lite.load import build_codec, load_assistant
from omni_lite.model import OmniModel
from omni_lite.recipes.lite.evaluate import same_text
from omni_lite.recipes.lite.phases import LITE_PHASES
from omni_lite.recipes.lite.stages import save_packed, save_phase
from omni_lite.recipes.transforms import HideText
from omni_lite.vocab import Vocab
from tests import release_layout
from tests.release_layout import random_checkpoint, write_release, write_snac, write_whisper

RELEASED = release_layout.TINY
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
    for phase in LITE_PHASES:
        if phase.name in LINEAGE[LAST_PHASE]:
            save_phase(lite / f"{phase.name}.safetensors", model, phase)
    save_packed(lite / "codec.safetensors", build_codec(TINY.codec).state_dict())
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
    """The packaged question as a stereo wav of an odd rate."""
    path = tmp_path / "q.wav"
    wave, rate = soundfile.read(ROOT / "data" / "audio" / "question.wav")
    soundfile.write(path, soxr.resample(np.stack([wave, 0.5 * wave], axis=1), rate, 22_050), 22_050)
    return path


KEYS = {"file", "heard", "text", "audio_path", "audio_s", "first_audio_ms", "total_ms", "rtf", "steps", "peak_rss_mb"}


def test_answers_of_the_fast_path_are_compared_with_the_readable_one(checkpoints):
    assistant = load_assistant(weights=checkpoints / "lite")
    dice = torch.Generator().manual_seed(0)
    rows = [Row("test", i, "", "", question_wav=0.1 * torch.randn(8_000, generator=dice)) for i in range(3)]
    exact, small = (same_text(assistant, faster(assistant, precision), rows) for precision in ("fp32", "int8"))
    assert exact == dict(clips=3, same=100.0, different=[])
    assert len(small["different"]) == round(3 * (1 - small["same"] / 100)) and assistant.decoder is None


def test_who_waits_for_an_answer_gets_the_fast_path_with_the_same_answer(checkpoints):
    plain = load_assistant(weights=checkpoints / "lite")
    fast = quick(plain)
    assert plain.decoder is None and fast.decoder is not None and quick(fast) is fast
    wave = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    one, other = (some.answer(wave, limit=5, sampling=Sampling()) for some in (plain, fast))
    assert (one.text, one.steps) == (other.text, other.steps)
    plain.model.trunk.config.model_type = "gpt_neox"               # a trunk for which there is no fast path
    assert quick(plain) is plain


def test_json_is_one_object_and_nothing_else(talk, question, tmp_path):
    status, out, _ = talk(str(question), "--json", "--out", str(tmp_path / "a.wav"))
    (line,) = out.splitlines()
    record = json.loads(line)
    assert status == 0 and set(record) == KEYS and record["file"] == str(question)
    if record["audio_path"]:
        wave, rate = soundfile.read(tmp_path / "a.wav")
        assert rate == 24_000 and len(wave) == pytest.approx(record["audio_s"] * 24_000, abs=24)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_precision_asks_for_the_fast_path(talk, question, precision):
    status, out, _ = talk(str(question), "--json", "--precision", precision, "--limit", "5")
    assert status == 0 and set(json.loads(out)) == KEYS
    if precision == "fp32":                                        # the same answer as the readable path's
        plain = json.loads(talk(str(question), "--json", "--limit", "5")[1])
        assert [plain[key] for key in ("heard", "text", "steps")] == [
            json.loads(out)[key] for key in ("heard", "text", "steps")]


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
    (["q.wav", "--preset", "huge"], "is not a model folder"),
    (["q.wav", "--device", "abacus"], "'abacus' is not available here"),
    (["q.wav", "--out", "answer.mp3"], "must end in .wav"),
    (["q.wav", "q.wav", "--out", "answer.wav"], "give a folder"),
    (["short.wav"], "short.wav lasts"),
])
def test_what_goes_wrong_is_one_sentence(talk, question, tmp_path, args, sentence):
    soundfile.write(tmp_path / "short.wav", np.ones(100) * 0.1, 16_000)
    status, out, err = talk(*args)
    assert status == 1 and out.count("\n") <= 1 and sentence in err and len(err.strip().splitlines()) == 1


# --- the released Mini-Omni ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A whole tiny release folder, ears and codec included, with random weights."""
    folder = write_release(tmp_path_factory.mktemp("release"), RELEASED, random_checkpoint(RELEASED))
    write_whisper(folder)
    write_snac(folder)
    return folder


def ask_released(talk, weights, *args: str) -> tuple[int, str, str]:
    return talk(*args, "--preset", "mini-omni", "--weights", str(weights), "--limit", "12", "--json")


def test_the_release_talks(talk, question, released, tmp_path):
    status, out, err = ask_released(talk, released, str(question), "--out", str(tmp_path / "a.wav"))
    record = json.loads(out)
    assert (status, err) == (0, "") and set(record) == KEYS
    wave, rate = soundfile.read(tmp_path / "a.wav")                             # noise, but spoken
    assert rate == 24_000 and len(wave) >= 2048 and wave.std() > 0
    status, out, _ = ask_released(talk, released, "w1 w2 w3", "--task", "T1T2")
    assert status == 0 and set(json.loads(out)["text"].split()) <= {f"w{i}" for i in range(136)}


def test_the_release_hears_the_whole_window(released):
    assistant = load_assistant("mini-omni", weights=released)
    wave = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    theirs = load_whisper("small", full=True, folder=released)
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(wave))
    expected = theirs.embed_audio(mel[None])[:, : int(1000 / 20) + 1]           # as the release does it
    torch.testing.assert_close(assistant.hear(wave), expected)
    features, lengths = assistant.ears.features([wave, wave[:8000]])
    assert lengths.tolist() == [51, 26]
    torch.testing.assert_close(features[:1], expected)
    assert not features[1, 26:].any()
    assert assistant.sampling.audio_temperature == 0                            # it takes what is most likely


def test_only_a_voice_that_has_spoken_without_reading_is_led_by_what_it_reads(checkpoints):
    hides = [phase.name for phase in LITE_PHASES if any(isinstance(one, HideText) for one in phase.transforms)]
    assert hides == [LAST_PHASE]
    assert load_assistant(weights=checkpoints / "lite").sampling == GUIDED
    assert load_assistant(weights=checkpoints / "lite", phase="reading").sampling == SAMPLING
    assert GUIDED.guidance > 1 == SAMPLING.guidance


def test_whisper_rounds_only_where_the_model_rounds_more_and_the_window_is_long(checkpoints):
    plain = load_assistant(weights=checkpoints / "lite")
    short, long = plain.ears, Ears(plain.ears.encoder, whole_window=True)
    fast = {precision: FastDecoder(plain.model, precision) for precision in ("fp32", "int8")}
    assert not any(hears_in_bf16(decoder, ears) for decoder in (None, fast["fp32"]) for ears in (short, long))
    assert [hears_in_bf16(fast["int8"], ears) for ears in (short, long)] == [False, True]


@pytest.mark.parametrize("how, words", [
    ("a key", ["lit_model.pth", "lacks transformer.ln_f.weight"]),
    ("the settings", ["model_config.yaml"]),
    ("the tokenizer", ["tokenizer.json"]),
    ("the codec's weights", ["pytorch_model.bin"]),
    ("other ears", ["Whisper of width 16", "small.pt"]),
    ("another codec", ["a codec with 40 entries", "snac_24khz"]),
    ("the folder", ["is not a folder", "lit_model.pth"]),
])
def test_what_a_release_lacks_is_one_sentence(talk, question, released, tmp_path, how, words):
    folder = tmp_path / "spoilt"
    shutil.copytree(released, folder)
    if how == "a key":
        tensors = random_checkpoint(RELEASED)
        del tensors["transformer.ln_f.weight"]
        torch.save(tensors, folder / "lit_model.pth")
    elif how == "other ears":
        write_whisper(folder, width=8)
    elif how == "another codec":
        shutil.rmtree(folder / "snac_24khz")
        write_snac(folder, codebook=41)
    elif how == "the folder":
        shutil.rmtree(folder)
    else:
        (folder / {"the settings": "model_config.yaml", "the tokenizer": "tokenizer.json",
                   "the codec's weights": "snac_24khz/pytorch_model.bin"}[how]).unlink()
    status, out, err = ask_released(talk, folder, str(question))
    assert status == 1 and out == "" and len(err.strip().splitlines()) == 1
    assert all(word in err for word in words), err


def test_random_weights_need_no_files(talk, question, monkeypatch):
    small = replace(
        MINI_OMNI,
        vocab=Vocab(text_base=400, codebook=40),
        ear=replace(MINI_OMNI.ear, whisper="tiny.en", width=384, hidden=16),
        codec=CodecConfig(kind="snac", codebook=40),
        trunk=TINY.trunk,
    )
    monkeypatch.setattr(room, "MINI_OMNI", small)
    monkeypatch.setattr("omni_lite.interop.snac.SNAC_24KHZ", SNAC_24KHZ | {"encoder_dim": 2, "decoder_dim": 32})
    status, out, err = ask_released(talk, "random", str(question))
    assert (status, err) == (0, "") and json.loads(out)["audio_s"] > 0


@pytest.mark.parametrize("out, place", [
    ([], "answer.wav"),
    (["--out", "answer.wav"], "answer.wav"),
    (["--out", "sub/../answer.wav"], "answer.wav"),
    (["--out", "q.wav"], "./q.wav"),
    (["--out", "q.wav"], "link.wav"),
    (["--out", "answers"], "answers/q-answer.wav"),
])
def test_an_answer_never_overwrites_its_question(talk, question, tmp_path, out, place):
    (tmp_path / "sub").mkdir()
    (tmp_path / "answers").mkdir()
    files = [place]
    if place == "link.wav":
        (tmp_path / place).symlink_to(question)
    elif place != "./q.wav":
        shutil.copy(question, tmp_path / place)
    if place.startswith("answers"):
        files = [str(question), str(tmp_path / place)]         # the answer to the first goes where the second lies
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.wav")}
    status, printed, err = talk(*files, *out)
    assert status == 1 and "would overwrite the question" in err and "--out" in err and "loading" not in printed
    assert len(err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.wav")} == before


def test_several_answers_at_once_are_those_of_each_alone(checkpoints):
    """Two answers of one assistant share no cache, whether they take turns or two threads make them."""
    assistant = quick(load_assistant(weights=checkpoints / "lite"))
    waves = [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (8_000, 16_000, 24_000)]

    def ids(step) -> tuple:
        return step.text_id, step.tokens.tolist()

    alone = [[ids(step) for step in assistant.ask(wave, limit=20)] for wave in waves]
    assert len({tuple(map(str, one)) for one in alone}) == 3
    streams = [assistant.ask(wave, limit=20) for wave in waves]
    together: list[list] = [[] for _ in waves]
    for steps in zip_longest(*streams):
        for found, step in zip(together, steps, strict=True):
            found += [] if step is None else [ids(step)]
    assert together == alone
    with ThreadPoolExecutor(3) as threads:
        made = threads.map(lambda wave: [ids(step) for step in assistant.ask(wave, limit=20)], waves * 3)
        assert list(made) == alone * 3
    stream = assistant.ask(waves[0], limit=20)
    next(stream)
    stream.close()                                                 # what was begun and left is free again
    assert [ids(step) for step in assistant.ask(waves[1], limit=20)] == alone[1]
    assert assistant._decoder_is_free.acquire(blocking=False)


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_a_live_demo_and_a_cell_can_use_one_assistant(checkpoints, precision):
    widgets = pytest.importorskip("omni_lite.course.widgets")
    assistant = load_assistant(weights=checkpoints / "lite", precision=precision)
    waves = [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (16_000, 24_000)]
    alone = [assistant.answer(wave, limit=20) for wave in waves]
    demo = widgets.LiveDemo(assistant, limit=20)           # begins to warm up in its own thread
    for wave, expected in zip(waves[::-1], alone[::-1], strict=True):
        turn, reply = demo._answer(widgets.Question(waves[0])), assistant.answer(wave, limit=20)
        assert reply.text == expected.text and np.array_equal(reply.wav_24k, expected.wav_24k)
        assert turn.result().text == alone[0].text
    demo.close()


def test_the_ears_of_a_saved_config_are_honoured(checkpoints, tmp_path):
    folder = tmp_path / "lite"
    shutil.copytree(checkpoints / "lite", folder)
    wave = torch.zeros(16_000)
    assert load_assistant(weights=folder).ears.num_features(len(wave)) == 60
    config = json.loads((folder / "config.json").read_text())
    config["ear"]["whole_window"] = True
    (folder / "config.json").write_text(json.dumps(config))
    ears = load_assistant(weights=folder).ears
    assert ears.whole_window and ears.num_features(len(wave)) == 51


@pytest.mark.parametrize("options, words", [
    (["--precision", "int8"], "--precision is for the presets lite and mini-omni: leave it out"),
    (["--no-batch-parallel"], "--no-batch-parallel is for the presets lite and mini-omni: leave it out"),
])
def test_what_a_chat_model_refuses_is_one_sentence(talk, question, options, words):
    status, out, err = talk(str(question), "--preset", "smollm2", *options)
    assert status == 1 and words in err and "smollm2" in err and len(err.strip().splitlines()) == 1 and out == ""


def test_another_folder_for_the_lite_preset(talk, question, checkpoints, monkeypatch, tmp_path):
    monkeypatch.setattr(room, "CHECKPOINTS", tmp_path / "nothing here")
    status, out, _ = talk(str(question), "--weights", str(checkpoints / "lite"), "--json", "--limit", "3")
    assert status == 0 and json.loads(out)["steps"] <= 10
    status, _, err = talk(str(question), "--limit", "0")
    assert status == 1 and "--limit 0" in err


# --- files of our own ------------------------------------------------------------------------------------


def test_a_truncated_weight_file_is_named(checkpoints, tmp_path):
    broken = tmp_path / "lite"
    shutil.copytree(checkpoints / "lite", broken)
    path = broken / "phase3.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="phase3.safetensors"):
        load_model(broken)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="has no phase3.safetensors"):
        load_model(broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json"):
        load_model(broken)


def test_answers_repeat_under_a_seed_and_stop_when_closed(checkpoints, monkeypatch):
    monkeypatch.setattr(room, "CHECKPOINTS", checkpoints)
    assistant = load_assistant()
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    one, two = (assistant.answer(wave, seed=5, limit=6) for _ in range(2))
    assert one.text == two.text and np.array_equal(one.wav_24k, two.wav_24k)
    three = assistant.answer(assistant.hear(wave), seed=5, limit=6)
    assert three.text == one.text and np.array_equal(one.wav_24k, three.wav_24k)
    stream = assistant.ask(wave, limit=6)
    next(stream)
    stream.close()
    with pytest.raises(ValueError, match="as text"):
        next(assistant.ask(wave, "T1T2"))
