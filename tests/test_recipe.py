"""`make train-lite` from end to end at a tiny size: every stage, its files, and a second start that does nothing."""

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from omni_lite import recipe
from omni_lite.__main__ import main
from omni_lite.assistant import ROOT, load_model
from omni_lite.by_ear import DECODER_PLANS
from omni_lite.clarity import CLARITY_PLANS
from omni_lite.config import CodecConfig
from omni_lite.data import Row, load_tokenizer, read_rows
from omni_lite.preference import PREFERENCE_PLANS
from omni_lite.rehearsal import REHEARSAL
from omni_lite.train import CODEC_PLANS, LITE_PHASES
from tests.test_talk import TINY

# The recipe cut down to a few tiny steps.
FEW = recipe.Recipe(
    "few",
    codec=tuple(replace(plan, steps=2, batch=2, seconds=0.4) for plan in CODEC_PLANS),
    phases=tuple(replace(phase, steps=8, steps_per_batch=120, peak=0.5) for phase in LITE_PHASES),
    decoder=tuple(replace(plan, steps=2, batch=2, seconds=0.5) for plan in DECODER_PLANS),
    preference=tuple(replace(plan, texts=3, draws=3, steps=2, gap=-1.0) for plan in PREFERENCE_PLANS),
    clarity=tuple(replace(plan, texts=4, draws=2, steps=2, recordings=2, renditions=2, seconds=60.0)
                  for plan in CLARITY_PLANS),
    rehearsal=replace(REHEARSAL, texts=4, draws=2, steps=2, rare=0.0, own=1.0, clear=1e3))


def sound(seed: int, seconds: float, rate: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate)) * 0.1
    soundfile.write(buffer, noise, rate, format="FLAC")
    return buffer.getvalue()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A set of six questions, and a tiny model."""
    data = tmp_path / "data"
    data.mkdir()
    pairs = [(f"What is {word}?", f"It is {word}.") for word in ("one", "two", "three", "four", "five", "six")]
    rows = [dict(split_name="train", index=i, round=1, question=q, answer=a, answer_snac="", skill="s", fact=f"s/{i}",
                 voice="v:v", question_audio=dict(bytes=sound(i, 0.4, 16_000), path=""))
            for i, (q, a) in enumerate(pairs)]
    for name in ["train", *(f"{split}_{kind}" for split in ("dev", "test")
                            for kind in ("facts", "voices", "both", "phrasings"))]:
        table = pa.Table.from_pylist([row | dict(split_name=name) for row in rows])
        pq.write_table(table, data / f"{name}-000.parquet")
    (tmp_path / "few").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "few" / "train.parquet")
    monkeypatch.setattr(recipe, "SUBSET", tmp_path / "few")
    texts = [row | dict(split_name="text", question_audio=None) for row in rows]
    pq.write_table(pa.Table.from_pylist(texts), data / "text.parquet")
    answers = [dict(split_name="train", answer=a, audio=sound(9, 0.5, 24_000)) for _, a in pairs]
    pq.write_table(pa.Table.from_pylist(answers), data / "answers-000.parquet")
    monkeypatch.setattr(recipe, "LITE", replace(TINY, codec=CodecConfig("lite", 32, 16), tts_reads_text=True))
    monkeypatch.setattr(recipe, "ROOT", tmp_path)
    monkeypatch.setitem(recipe.RECIPES, "few", FEW)
    return tmp_path


def test_all_stages_then_nothing_left_to_do(small, capsys, monkeypatch):
    data, run, out = small / "data", small / "runs" / "lite", small / "out"
    recipe.train_lite(data, run, out, None, recipe=FEW)
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "tokenizer.json", "codec.safetensors", "text.safetensors", "phase1a.safetensors",
                     "phase1b.safetensors", "phase2.safetensors", "phase3-lm.safetensors", "phase3-voice.safetensors",
                     "ears.safetensors", "merged.safetensors", "reading.safetensors", "final.safetensors"}
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    capsys.readouterr()
    recipe.train_lite(data, run, out, None, recipe=FEW)
    assert capsys.readouterr().out == ""
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")} == stamps

    first, third, last = load_model(out, "phase1a"), load_model(out, "reading"), load_model(out)
    assert torch.isfinite(last.trunk.norm.weight).all()
    for part in ("trunk.layers.0.mlp.up_proj.weight", "tts_adapter.head.weight"):
        assert not torch.equal(first.get_parameter(part), last.get_parameter(part))
        assert torch.equal(third.get_parameter(part), last.get_parameter(part)) == part.startswith("trunk")
    described = recipe.card(data, out, {}, run)
    assert [phase["steps"] for phase in described["phases"]] == [8] * len(LITE_PHASES)      # as they were trained
    recipe.write_subset(data, small / "subset", train=4, test=3)
    picked = read_rows([small / "subset" / "train.parquet"])
    assert len(picked) >= 3 and all(row.codes is not None and len(row.question_wav) == 6400 for row in picked)


def test_the_last_stage_changes_decoder_and_voice_alone_and_once(small):
    data, run, out = small / "data", small / "runs" / "lite", small / "out"
    run.mkdir(parents=True)
    recipe.stage_codec(data, run, out, print, recipe=FEW)
    before = recipe.trained_codec(out).state_dict()
    with pytest.raises(FileNotFoundError, match="no final.safetensors, which draws the codes"):
        recipe.stage_decoder(data, run, out, print, recipe=FEW)
    model = recipe.OmniModel(recipe.LITE)
    for phase in FEW.phases:
        recipe.save_phase(model, phase, out)
    recipe.stage_tokenizer(data, run, out, print)
    (out / "config.json").write_text(recipe.json.dumps(recipe.LITE.to_dict()))
    said, thought = [], load_model(out).state_dict()
    recipe.stage_decoder(data, run, out, said.append, recipe=FEW)
    assert "6 sentences" in said[0] and "decoder  step 2/2" in said[1]
    assert "decoder_words  step 2/2" in said[2] and "decoder_voice  step 2/2" in said[3]
    assert "voice_alone  step 2/2" in said[4]
    after = recipe.trained_codec(out).state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("decoder."))
    spoken = load_model(out).state_dict()
    changed = {name.split(".")[0] for name in spoken if not torch.equal(thought[name], spoken[name])}
    assert changed == {"tts_adapter"}
    recipe.stage_decoder(data, run, out, said.append, recipe=FEW)
    assert len(said) == 5                                                   # nothing left to do
    recipe.save_codec(out / "codec.safetensors", recipe.trained_codec(out), FEW.decoder[0].name)
    recipe.stage_decoder(data, run, out, said.append, recipe=FEW)
    assert "decoder_words  goes on at step 2/2" in said[6] and len(said) == 9      # the first plan is not run again


def test_the_choice_changes_the_voice_alone_and_once(small):
    data, run, out = small / "data", small / "runs" / "lite", small / "out"
    recipe.train_lite(data, run, out, None, recipe=FEW)
    recipe.save_phase(load_model(out), FEW.phases[-1], out)         # as if `final` had been trained anew
    for state in run.glob("preference*"):
        state.unlink()
    said, before = [], load_model(out).state_dict()
    recipe.stage_preference(data, run, out, said.append, recipe=FEW)
    assert any("preference_1  step 2/2" in line for line in said) and "preference_3  step 2/2" in said[-1]
    after = load_model(out).state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])} == {"tts_adapter"}
    told = len(said)
    recipe.stage_preference(data, run, out, said.append, recipe=FEW)
    assert len(said) == told                                                # nothing left to do


def test_the_very_last_stage_changes_the_decoder_alone_and_once(small):
    data, run, out = small / "data", small / "runs" / "lite", small / "out"
    recipe.train_lite(data, run, out, None, recipe=FEW)
    recipe.save_codec(out / "codec.safetensors", recipe.trained_codec(out), FEW.decoder[-1].name)
    for state in (state for plan in CLARITY_PLANS for state in run.glob(f"{plan.name}*")):
        state.unlink()
    said, before, voice = [], recipe.trained_codec(out).state_dict(), load_model(out).state_dict()
    recipe.stage_clarity(data, run, out, said.append, recipe=FEW)
    assert any("18 recordings, 8 renditions" in line for line in said)
    assert f"{CLARITY_PLANS[-1].name}  step 2/2" in said[-1]
    after = recipe.trained_codec(out).state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}
    assert all(torch.equal(voice[name], tensor) for name, tensor in load_model(out).state_dict().items())
    told = len(said)
    recipe.stage_clarity(data, run, out, said.append, recipe=FEW)
    recipe.stage_decoder(data, run, out, said.append, recipe=FEW)
    assert len(said) == told                                                # nothing left to do


def test_the_rehearsal_changes_the_voice_alone_and_once(small, monkeypatch):
    data, run, out = small / "data", small / "runs" / "lite", small / "out"
    recipe.train_lite(data, run, out, None, recipe=FEW)
    recipe.save_phase(load_model(out), FEW.phases[-1], out, PREFERENCE_PLANS[-1].name)
    for state in run.glob("rehearsal*"):
        state.unlink()
    few = replace(FEW, rehearsal=replace(REHEARSAL, texts=4, draws=2, steps=2, rare=0.5, own=0.5, clear=1e3))
    with pytest.raises(FileNotFoundError, match="has no spoken_rare.*make data"):
        recipe.stage_rehearsal(data, run, out, print, recipe=few)
    rare = [dict(split_name="train", answer=text, audio=sound(i, 0.6, 24_000)) for i, text in enumerate(("A.", "B c."))]
    pq.write_table(pa.Table.from_pylist(rare), data / "spoken_rare-000.parquet")
    pq.write_table(pa.Table.from_pylist(rare[:1]), data / "spoken_crossed-000.parquet")
    said, before, codec = [], load_model(out).state_dict(), recipe.trained_codec(out).state_dict()
    recipe.stage_rehearsal(data, run, out, said.append, recipe=few)
    assert any("2 rare, 5 own, 0 recorded" in line for line in said) and "rehearsal  step 2/2" in said[-1]
    after = load_model(out).state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])} == {"tts_adapter"}
    assert all(torch.equal(codec[name], tensor) for name, tensor in recipe.trained_codec(out).state_dict().items())
    told = len(said)
    for stage in (recipe.stage_rehearsal, recipe.stage_preference):
        stage(data, run, out, said.append, recipe=few)
    assert len(said) == told                                                # nothing left to do


def test_what_answers_many_questions_is_said_most(tmp_path):
    rows = [Row("text", i, f"q{i}", "yes") for i in range(10)] + [Row("text", 10, "r", "once")]
    spoken, takes = recipe.all_spoken(dict.fromkeys(("yes", "once", "extra"), torch.zeros(7, 2)), rows, tmp_path, tuple)
    said = Counter("".join(answer) for _, answer, _ in spoken)
    assert said == {"yes": 3 * 4, "once": 3, "extra": 1} and takes == {}
    assert "".join(spoken[-1][0]) == "Repeat after me: extra"


def test_natural_voices_are_heard_for_a_third_but_none_too_often():
    assert recipe.how_often(["espeak:a"] * 70 + ["kokoro:b"] * 10) == [1] * 70 + [3] * 10
    assert recipe.how_often(["flite:a"] * 90 + ["kokoro:b"]) == [1] * 90 + [recipe.NATURAL_TIMES]
    assert recipe.how_often(["", "kokoro:b"]) == [1, 1] and recipe.how_often(["", ""]) == [1, 1]


def test_the_first_checkpoint_holds_all_that_text_passes_through(small, monkeypatch):
    """Marks of the audio rows stand beside every text token: another random start must not change what it says."""
    monkeypatch.setitem(recipe.BITS, "text", 8)          # the finest rounding
    torch.manual_seed(1)
    trained = recipe.OmniModel(recipe.LITE).eval()
    recipe.save_phase(trained, FEW.phases[0], small)
    other = recipe.OmniModel(recipe.LITE).eval()
    other.load_over(small / "text.safetensors")
    vocab = recipe.LITE.vocab
    text, audio = torch.tensor([[vocab.input_t, 5, vocab.eot, vocab.answer_t]]), torch.full((1, 7, 4), vocab.pad_a)
    audio[:, :, 0] = vocab.input_a
    torch.testing.assert_close(other(text, audio)[0], trained(text, audio)[0], rtol=0.05, atol=0.01)
    third = recipe.OmniModel(recipe.LITE).eval()
    third.load_over(small / "text.safetensors")
    assert torch.equal(other(text, audio)[0], third(text, audio)[0])
    codes = other.audio_embed.weight.view(7, vocab.audio_size, -1)[:, : vocab.codebook]
    assert (codes == 0).all()


def test_weights_trained_anew_are_not_taken_for_altered_ones(small):
    model = recipe.OmniModel(recipe.LITE).eval()
    recipe.save_phase(model, FEW.phases[0], small)
    recipe.write_card(small, dict(sha256={"text.safetensors": recipe.sha256_of(small / "text.safetensors"), "x": "y"}))
    torch.nn.init.ones_(model.trunk.norm.weight)
    recipe.save_phase(model, FEW.phases[0], small)
    model.load_over(small / "text.safetensors")
    assert recipe.read_card(small)["sha256"] == {"x": "y"}


def test_the_card_changes_only_where_something_was_trained(small):
    recipe.save_phase(recipe.OmniModel(recipe.LITE), FEW.phases[0], small)
    old = dict(phases=[dict(name="text", steps=5), dict(name="phase3", steps=7)], minutes={"text": 3.0, "phase3": 4.0},
               figures={"x": 1.0}, sha256={}, date="then")
    recipe.write_card(small, old)
    new = recipe.card(small / "data", small, {"x": 2.0}, small / "runs")          # only evaluated
    assert new == old | dict(figures={"x": 2.0},
                             sha256={"text.safetensors": recipe.sha256_of(small / "text.safetensors")})

    run = small / "runs" / "lite"
    run.mkdir(parents=True)
    recipe.note(run / recipe.SETTINGS, "phase3", dict(name="phase3", steps=9))  # one phase trained anew
    recipe.note(run / recipe.SETTINGS, "recipe", FEW.name)
    recipe.note(run / recipe.MINUTES, "phase3", 6.0)
    new = recipe.card(small / "data", small, {}, run)
    steps = {phase["name"]: phase["steps"] for phase in new["phases"]}
    assert steps == {phase.name: 8 for phase in FEW.phases} | {"text": 5, "phase3": 9}
    assert new["minutes"] == {"text": 3.0, "phase3": 6.0} and new["date"] == "then"


def test_the_short_recipe_is_the_whole_one_in_fewer_steps():
    """All phases in their order, each with one round of its schedule and else as in the whole recipe."""
    short, whole = recipe.SHORT, recipe.WHOLE
    assert [phase.name for phase in short.phases] == [phase.name for phase in whole.phases]
    for few, many in zip(short.phases, whole.phases, strict=True):
        assert few == replace(many, steps=few.steps, restarts=()) and few.steps < many.steps
    assert {plan.name for plan in short.codec} <= {plan.name for plan in whole.codec} and short.codec[0].steps > 0
    assert short.rehearsal is None and recipe.RECIPES == {"whole": whole, "short": short}


def test_the_readme_tells_the_short_recipe_as_it_was_run():
    """Steps and figures of the run on its card are those of the recipe and of the README."""
    card = recipe.json.loads((ROOT / "benchmarks" / "results" / "short-recipe.json").read_text())
    assert {phase["name"]: phase["steps"] for phase in card["phases"]} == {p.name: p.steps for p in recipe.SHORT.phases}
    plans = (*recipe.SHORT.codec, *recipe.SHORT.decoder)
    assert [(plan["name"], plan["steps"]) for plan in card["codec"]] == [(p.name, p.steps) for p in plans]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| figure | `make train-short` |")
    told = dict(line.strip("| ").split(" | ")[:2] for line in table.split("\n\n")[0].splitlines()[2:])
    assert told and all(float(value) == card["figures"][name] for name, value in told.items())
    assert f"it took {sum(card['minutes'].values()):.0f} minutes" in " ".join(text.split())


def test_a_recipe_of_another_folder_leaves_the_committed_weights_alone(small, monkeypatch, capsys):
    """`train --recipe short` has its own data, run and weights; `evaluate --weights` writes the card beside those."""
    monkeypatch.chdir(small)
    seen = {}
    monkeypatch.setattr(recipe, "train_lite", lambda data, run, out, only, device, plans: seen.update(
        data=str(data), run=str(run), out=out and str(out), name=plans.name))
    assert main(["train", "--recipe", "short"]) == 0
    assert seen == dict(data="data/short", run="runs/short", out="runs/short/lite", name="short")
    assert main(["train"]) == 0
    assert seen == dict(data="data/full", run="runs/lite", out=None, name="whole")
    assert main(["train", "--preset", "smollm2", "--recipe", "short"]) == 1
    assert main(["evaluate", "--preset", "smollm2", "--weights", "x"]) == 1
    said = capsys.readouterr().err
    assert "--recipe short is for the lite preset" in said and "--weights is for the lite preset" in said
    assert recipe.run_of(small / "runs" / "short" / "lite") == small / "runs" / "short"
    assert recipe.run_of(recipe.CHECKPOINTS / "lite") == small / "runs" / "lite"


def test_a_phase_without_steps_passes_on_what_it_gets(small):
    """So that a recipe without `merged` or `reading` leaves a folder like any other."""
    run, out = small / "runs", small / "out"
    run.mkdir()
    out.mkdir()
    (out / "config.json").write_text(recipe.json.dumps(recipe.LITE.to_dict()))
    torch.manual_seed(1)
    model = recipe.OmniModel(recipe.LITE)
    torch.nn.init.normal_(model.tts_adapter.text.weight, std=0.02)              # as if a phase had trained it
    recipe.save_phase(model, FEW.phases[0], out)
    recipe.save_phase(model, next(phase for phase in FEW.phases if phase.name == "phase3"), out)
    before = load_model(out, "phase3").state_dict()
    for phase in FEW.phases[-4:]:
        recipe.stage_phase(replace(phase, steps=0), small / "nowhere", run, out, print, recipe=FEW)
    after = load_model(out).state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0.05, atol=0.05)         # but for the rounding


def test_an_unknown_stage_and_a_missing_set_are_named(small):
    with pytest.raises(ValueError, match="no stage 'phase9'"):
        recipe.train_lite(small / "data", small / "run", small / "out", "phase9")
    with pytest.raises(FileNotFoundError, match="make data"):
        recipe.train_lite(small / "nowhere", small / "run", small / "out", "codec")


def test_facts_of_rare_skills_are_read_more_often():
    rows = [Row("text", 0, f"What is {i}?", f"Capital {i}.", skill="capitals", fact="c") for i in range(300)]
    rows += [Row("text", 0, f"How many {i} {j}?", f"Unit {i}.", skill="units", fact="u")
             for i in range(75) for j in range(4)]
    rows += [Row("text", 0, "Are you there?", "Yes.", skill="small talk", fact="s")]
    rows += [Row("text", 0, f"Repeat: {i}", str(i), skill="repeat", fact="r") for i in range(5000)]
    times = Counter(row.answer for row in recipe.balanced(rows) if row.skill != "repeat")
    assert {times[f"Capital {i}."] for i in range(300)} == {10}          # one phrasing, ten times
    assert {times[f"Unit {i}."] for i in range(75)} == {20}              # a quarter as many facts, twice as often
    assert times["Yes."] == 40                                           # never more than four times as often
    assert len(recipe.balanced(rows)) == round(1.1 * times.total())


def test_word_salads_come_after_the_sentences_and_natural_voices_last(tmp_path):
    for name in ("heard_vocoder-000", "heard_festival-002", "heard_world-000", "heard_natural-014", "heard_words-000",
                 "heard-001", "heard-000", "spoken-000"):
        (tmp_path / f"{name}.parquet").touch()
    assert [path.stem for path in recipe.extras(tmp_path, "heard")] == ["heard-000", "heard-001", "heard_words-000",
                                                                        "heard_natural-014", "heard_world-000",
                                                                        "heard_festival-002", "heard_vocoder-000"]


def test_a_small_corpus_reads_hears_and_speaks_its_rows(small):
    recipe.stage_tokenizer(small / "data", small, small, print)
    tokenizer = load_tokenizer(small)
    rows = read_rows([small / "data" / "train-000.parquet"], sound=False)
    codes = torch.arange(14).reshape(7, 2)
    corpus = recipe.small_corpus(tokenizer, [replace(row, codes=codes) for row in rows[:4]] + rows[4:], None, rows)
    assert [clip for clip, _ in corpus.transcribed] == [clip for clip, *_ in corpus.heard] == list(range(6))
    assert tokenizer.decode(list(corpus.heard[2][2])).strip() == rows[2].answer
    assert len(corpus.spoken) == 4 and len(corpus.written) >= 6 and corpus.copied


def test_half_of_a_set_has_every_skill_as_often_as_the_whole():
    rows = [Row("test", i, "q", "a", skill="abcd"[i % 4]) for i in range(32)]
    half = recipe.first_half(sorted(rows, key=lambda row: (row.index % 5, row.index)))
    assert Counter(row.skill for row in half) == dict.fromkeys("abcd", 4)


def test_times_are_kept_only_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "CHECKPOINTS", tmp_path)
    (tmp_path / "lite").mkdir()
    recipe.write_card(tmp_path / "lite", dict(figures={}))
    with pytest.raises(ValueError, match="card.json has no times to keep: leave out --keep-times"):
        recipe.evaluate_lite(tmp_path, "lite", "test", None, None, keep_times=True)


def test_what_cannot_be_measured_is_said_before_anything_is(small, monkeypatch):
    monkeypatch.setattr(recipe.Assistant, "load", None)                    # which would be called next
    with pytest.raises(ValueError, match="0 seeds say nothing"):
        recipe.evaluate_lite(small / "data", "lite", "test", None, None, seeds=0)
    monkeypatch.setattr(recipe, "read_rows", lambda paths: [])
    monkeypatch.setattr(recipe, "shards", lambda data, name: [])
    with pytest.raises(ValueError, match="has no spoken answer of the dev split.*make data"):
        recipe.evaluate_lite(small / "data", "lite", "dev", None, None)


@pytest.mark.parametrize("preset, said", [("lite", "torch finds no GPU here"), ("smollm2", "learns on the CPU")])
def test_a_gpu_that_cannot_be_used_is_told_in_one_sentence(preset, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = ["train", "--preset", preset, "--device", "cuda", "--run", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
