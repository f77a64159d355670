"""The paper's recipe at a tiny size: `train --preset mini-omni` from Parquet files to weights that talk."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from omni_lite.cli import main
from omni_lite.config import CodecConfig, EarConfig
from omni_lite.data import codes_to_text, read_rows, train_tokenizer
from omni_lite.folder import data_folder, load_model
from omni_lite.litesnac import LiteSNAC
from omni_lite.load import build_codec, load_assistant
from omni_lite.recipes import paper
from omni_lite.recipes.lite.stages import save_packed
from omni_lite.recipes.paper import PAPER, PAPER_PHASES, ParquetClips, Start, paper_recipe
from omni_lite.streams import Task
from omni_lite.train import EVERYTHING, LANGUAGE_MODEL

LIKE = replace(PAPER, codec=CodecConfig("lite", 32, 16), vocab=replace(PAPER.vocab, codebook=32), tts_blocks=1,
               ear=EarConfig("tiny.en", 384, 1, "swiglu", 16))
TINY = tuple(replace(phase, steps=3, batch_positions=400, accumulate=2) for phase in PAPER_PHASES)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A tiny Qwen2 with its tokenizer, and a data folder of all three kinds of files."""
    folder = tmp_path_factory.mktemp("paper")
    rows = read_rows([data_folder() / "subset" / "train.parquet"])[:6]
    tokenizer = train_tokenizer([row.question + row.answer for row in rows], 300)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / "backbone")
    config = Qwen2Config(vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder / "backbone")
    table = pq.read_table(data_folder() / "subset" / "train.parquet").slice(0, 6).to_pylist()
    codes = codes_to_text(torch.randint(0, 32, (7, 6)))
    for row in table:
        row["answer_snac"] = codes
    (folder / "data").mkdir()
    for kind, some in (("asr", [row | dict(answer="") for row in table]), ("text", table), ("qa", table)):
        pq.write_table(pa.Table.from_pylist(some), folder / "data" / f"{kind}-000.parquet", row_group_size=4)
    return folder


def recipe(ground, run):
    return paper_recipe(ground / "data", run, start=Start(str(ground / "backbone"), LIKE, warmup=1), phases=TINY)


def test_the_table_is_the_papers():
    trains = {phase.name: phase.trains for phase in PAPER_PHASES}
    assert list(trains) == ["phase1a", "phase1b", "phase2", "phase3", "final"]
    assert trains["phase1a"] == ("asr_adapter",) and trains["phase1b"] == ("audio_embed", "tts_adapter")
    assert trains["phase2"] == LANGUAGE_MODEL and trains["phase3"] == trains["final"] == EVERYTHING
    assert [phase.peak for phase in PAPER_PHASES] == [1e-3, 1e-3, 4e-4, 4e-4, 5e-5]
    assert {phase.end for phase in PAPER_PHASES} == {4e-6} and PAPER.tts_blocks == 6
    assert {phase.batch_positions * phase.accumulate for phase in PAPER_PHASES} == {192 * 400}


def test_it_runs_from_files_to_weights_that_answer(ground, tmp_path, capsys):
    recipe(ground, tmp_path).work_off()
    out = tmp_path / "weights"
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "model.safetensors", "phase1a.safetensors", "phase1b.safetensors", "phase2.safetensors",
        "phase3.safetensors", "tokenizer.json"]
    assert isinstance(Tokenizer.from_file(str(out / "tokenizer.json")), Tokenizer)
    capsys.readouterr()
    recipe(ground, tmp_path).work_off()                  # nothing is left to do
    assert capsys.readouterr().out == ""
    codec = build_codec(LIKE.codec)
    assert isinstance(codec, LiteSNAC)
    save_packed(out / "codec.safetensors", codec.state_dict())
    assistant = load_assistant(weights=out)
    reply = assistant.answer(torch.randn(8000) * 0.1, Task.A1A2, limit=3)
    assert reply.steps and assistant.model.config.tts_blocks == 1


def test_frozen_parts_stay_what_they_were(ground, tmp_path):
    recipe(ground, tmp_path).work_off("tokenizer")
    recipe(ground, tmp_path).work_off("phase1a")
    saved = json.loads((tmp_path / "stages" / "phase1a.json").read_text())
    assert list(saved["outputs"]) == ["weights/phase1a.safetensors"] and saved["origin"]["plan"][1]["accumulate"] == 2
    with pytest.raises(FileNotFoundError, match="phase2 needs phase1b, which is not done"):
        recipe(ground, tmp_path).work_off("phase2")
    with pytest.raises(FileNotFoundError, match="has no phase3.safetensors"):
        load_model(tmp_path / "weights")


def test_clips_are_read_a_row_group_at_a_time(ground):
    clips = ParquetClips([ground / "data" / "asr-000.parquet", ground / "data" / "qa-000.parquet"])
    assert len(clips) == 12
    whole = read_rows([ground / "data" / "qa-000.parquet"])
    assert clips[11].question == whole[5].question and torch.equal(clips[11].question_wav, whole[5].question_wav)
    assert paper.row_groups(ground / "data" / "qa-000.parquet") == [4, 2]


def test_a_folder_without_data_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paper, "make_tokenizer", lambda start, at: [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["train", "--preset", "mini-omni", "--data", "empty", "--only", "phase1a"]) == 1
    assert "phase1a needs tokenizer" in capsys.readouterr().err
