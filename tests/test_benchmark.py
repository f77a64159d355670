"""The benchmark at a toy size: all of its lines run, and its baseline computes what the decoders do."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import decode, listener, live
from omni_lite.assistant import Reply
from omni_lite.cli import main
from omni_lite.config import MINI_OMNI
from omni_lite.fast import FastDecoder
from omni_lite.generate import Sampling, choose
from omni_lite.model import OmniModel


def test_tiny_prints_a_table_and_keeps_it(tmp_path, capsys):
    assert main(["bench", "--tiny", "--steps", "3", "--out", str(tmp_path), "--variants", "release", "bf16"]) == 0
    out = capsys.readouterr().out
    assert "| release |" in out and "| bf16 |" in out and "| first audio, ms |" in out
    (file,) = tmp_path.glob("*-tiny.json")
    report = json.loads(file.read_text())
    assert report["size"] == "tiny" and report["bandwidth_gb_s"] > 0 and report["codec"]["frame_ms"] > 0
    for name in ("release", "bf16"):
        found = report["variants"][name]
        assert found["steps"] == 3 and 0 < found["step_ms"] <= found["step_p95_ms"] and found["peak_mb"] > 0
    stages = report["variants"]["bf16"]["first_audio"]
    parts = stages["hear_ms"] + stages["prefill_ms"] + stages["steps_ms"]
    assert stages["steps"] >= 8 and 0 < parts < 3 * stages["total_ms"]


def test_one_variant_alone_prints_json(capsys):
    assert decode.main(["--only", "int8", "--tiny", "--steps", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_bench_tells_what_is_wrong(capsys):
    assert main(["bench", "--tiny", "--steps", "0"]) == 1
    assert "leaves nothing to time" in capsys.readouterr().err


@torch.inference_mode()
def test_the_baseline_says_what_the_decoders_say():
    """The same weights, the same question: the same eight ids at each step, so the same work is compared."""
    torch.manual_seed(0)
    release, model = decode.Release(decode.TINY, "cpu"), OmniModel(decode.TINY).eval()
    vocab = decode.TINY.vocab
    tensors = {"trunk.norm.weight": release.norm, "text_embed.weight": release.table[: vocab.text_size],
               "audio_embed.weight": release.table[vocab.text_size :]}
    tensors |= dict(zip((f"asr_adapter.{name}.weight" for name in ("fc_1", "fc_2", "proj")), release.adapter,
                        strict=True))
    H, K, d = release.H, release.K, release.d
    for i, block in enumerate(release.blocks):
        name = f"trunk.layers.{i}"
        for kind, one in (("weight", block["qkv"]), ("bias", block["bias"])):
            if kind == "weight":
                one.mul_(10)
            groups = one.view(K, H // K + 2, d, -1).split([H // K, 1, 1], dim=1)  # each group: queries, key, value
            for part, rows in zip("qkv", groups, strict=True):
                tensors[f"{name}.self_attn.{part}_proj.{kind}"] = rows.reshape(-1, *one.shape[1:])
        for theirs, ours in (("norm_1", "input_layernorm"), ("out", "self_attn.o_proj"), ("gate", "mlp.gate_proj"),
                             ("norm_2", "post_attention_layernorm"), ("up", "mlp.up_proj"), ("down", "mlp.down_proj")):
            tensors[f"{name}.{ours}.weight"] = block[theirs].mul_(1 if "norm" in theirs else 10)
    model.load_state_dict(tensors)
    decoder = FastDecoder(model)
    question, features = decode.question_of(decode.TINY, 20, "cpu")
    logits = decoder.prefill(question, features, speaks=True, batch_parallel=True)
    ids = release.prefill(question, features)
    for position in range(20, 30):
        text, audio = choose(vocab, logits, Sampling(), any_id=True)
        assert ids == [*audio, text]
        logits, ids = decoder.step(text, audio), release.step(ids, position)


def test_the_documentation_quotes_what_was_measured_live(tmp_path):
    page = live.ROOT / "docs" / "performance.md"
    copy = tmp_path / "performance.md"
    copy.write_text(page.read_text())
    live.quote(copy)
    assert copy.read_text() == page.read_text()
    assert "| JupyterLab | Notebook 7 | Voila |" in copy.read_text()


def test_the_full_size_is_the_papers():
    with torch.device("meta"):
        model = OmniModel(MINI_OMNI)
    streamed = sum(p.numel() for name, p in model.named_parameters()
                   if p.dim() == 2 and not name.startswith("asr_adapter."))
    assert round(streamed / 1e6) == 520                            # numbers that a step reads


def test_the_second_listener_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(SystemExit, match="run `pip install pocketsphinx`"):
        listener.pocketsphinx()


def test_each_listener_hears_everything_that_is_said(monkeypatch, tmp_path):
    """Without the recordings the answers alone; a listener who writes nothing misses every word."""
    monkeypatch.setattr(listener, "whisper", lambda: lambda waves: ["It is four."] * len(waves))
    monkeypatch.setattr(listener, "pocketsphinx", lambda: lambda waves: [""] * len(waves))

    class Speaker:
        def answer(self, question: str, task: str) -> Reply:
            return Reply("It is four.", np.zeros(100, np.float32))

    figures = listener.measure(Speaker(), tmp_path, answers=3)
    assert figures == {"spoken answers": {"sentences": 3, "Whisper tiny.en": 0.0, "PocketSphinx": 100.0}}
