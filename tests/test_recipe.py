"""The lite recipe from end to end at a tiny size: every stage, its files, a second start, the card, the subset."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from omni_lite import evaluate as figures
from omni_lite.checkpoints import load_safetensors, read_card, sha256_of, write_card
from omni_lite.cli import main
from omni_lite.config import LITE, CodecConfig
from omni_lite.data import FeatureStore, Row, codes_from_text, load_tokenizer, read_rows
from omni_lite.folder import load_model, load_over
from omni_lite.model import OmniModel
from omni_lite.recipes.lite import corpus, evaluate, stages, subset
from omni_lite.recipes.lite.codec import CODEC_PLANS
from omni_lite.recipes.lite.phases import LITE_PHASES
from omni_lite.recipes.lite.stages import lite_recipe, save_packed, save_phase, trained_codec
from omni_lite.recipes.progress import Place, Recipe
from omni_lite.vocab import Vocab
from tests import assert_one_sentence
from tests.training import sound

TINY = replace(
    LITE,
    vocab=Vocab(text_base=300, codebook=32),
    codec=CodecConfig("lite", 32, 16),
    ear=replace(LITE.ear, hidden=16),
    trunk=LITE.trunk | dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1),
    tts_blocks=1,
)
WORDS = ("one", "two", "three", "four", "five", "six")
ROWS = [dict(split_name="train", index=i, round=1, question=f"What is {word}?", answer=f"It is {word}.", answer_snac="",
             skill="s", fact=f"s/{i}", voice="v:v", question_audio=dict(bytes=sound(i, 0.4, 16_000), path=""))
        for i, word in enumerate(WORDS)]
PHASES = [phase.name for phase in LITE_PHASES]


def write(path: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def data_set(folder: Path) -> Path:
    """Six questions to train with, two in each other set."""
    folder.mkdir()
    write(folder / "train-000.parquet", ROWS)
    for kind in ("facts", "voices", "both", "phrasings"):
        for split in ("dev", "test"):
            name = f"{split}_{kind}"
            write(folder / f"{name}-000.parquet", [row | dict(split_name=name) for row in ROWS[:2]])
    write(folder / "text.parquet", [row | dict(split_name="text", question_audio=None) for row in ROWS])
    splits = ("train",) * 6 + ("test",)
    write(folder / "answers-000.parquet", [
        dict(split_name=split, answer=f"It is {word}.", audio=sound(9 + i, 0.5, 24_000))
        for i, (split, word) in enumerate(zip(splits, (*WORDS, "seven"), strict=True))])
    return folder


def tiny_sizes(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The recipe's model is tiny, and the committed subset is `folder`/few."""
    (folder / "few").mkdir()
    write(folder / "few" / "train.parquet", ROWS)
    patch.setattr(corpus, "SUBSET", folder / "few")
    for module in (corpus, stages, evaluate):
        patch.setattr(module, "LITE", TINY)


def few(data: Path, run: Path) -> Recipe:
    """The lite recipe in a few small steps."""
    codec = tuple(replace(plan, steps=2, batch=2, seconds=0.4) for plan in CODEC_PLANS)
    phases = tuple(replace(phase, steps=3, batch_positions=120, peak=0.05) for phase in LITE_PHASES)
    return lite_recipe(data, run, codec=codec, phases=phases)


@pytest.fixture
def small(tmp_path, monkeypatch):
    tiny_sizes(monkeypatch, tmp_path)
    data_set(tmp_path / "data")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the whole recipe has run: data, run, few."""
    folder = tmp_path_factory.mktemp("recipe")
    with pytest.MonkeyPatch.context() as patch:
        tiny_sizes(patch, folder)
        few(data_set(folder / "data"), folder / "run").work_off()
        yield folder


# --- all stages --------------------------------------------------------------------------------------------


def test_all_stages_leave_weights_that_can_be_read_and_a_second_start_does_nothing(trained, capsys):
    recipe = few(trained / "data", trained / "run")
    names = {path.name for path in recipe.out.iterdir()}
    assert names == {"config.json", "tokenizer.json", "codec.safetensors", *(f"{name}.safetensors" for name in PHASES)}
    stamps = {path.name: path.stat().st_mtime_ns for path in recipe.out.iterdir()}
    assert list(recipe.minutes()) == [stage.name for stage in recipe.stages] == [
        "codec", "encode", "tokenizer", "text", "features", "phase1a", "takes", *PHASES[2:]]
    capsys.readouterr()
    recipe.work_off()
    assert capsys.readouterr().out == ""
    assert {path.name: path.stat().st_mtime_ns for path in recipe.out.iterdir()} == stamps
    assert not list((recipe.run / "work").iterdir())

    first, third, last = (load_model(recipe.out, name) for name in ("phase1a", "reading", "final"))
    assert not last.training and all(torch.isfinite(p).all() for p in last.parameters())
    for part in ("trunk.layers.0.mlp.up_proj.weight", "tts_adapter.head.weight"):
        assert not torch.equal(first.get_parameter(part), last.get_parameter(part))
        assert torch.equal(third.get_parameter(part), last.get_parameter(part)) == part.startswith("trunk")
    for name in PHASES[1:]:
        parts = {key.split(".")[0] for key in load_safetensors(recipe.out / f"{name}.safetensors")}
        assert parts <= set(LITE_PHASES[PHASES.index(name)].trains), name


def test_a_removed_phase_is_trained_again_and_nothing_else(trained, capsys):
    recipe = few(trained / "data", trained / "run")
    path = recipe.out / "merged.safetensors"
    before = path.read_bytes()
    path.unlink()
    recipe.work_off()
    said = capsys.readouterr().out
    assert "merged: done" in said and said.count(": done") == 1
    assert path.read_bytes() == before                   # from the same seed and the same teachers


def test_other_texts_of_the_same_sounds_make_what_trains_on_them_stale(trained, tmp_path):
    """The features stay, but nobody pairs them with other transcripts in silence."""
    data = data_set(tmp_path / "data")
    for path in data.iterdir():
        path.write_bytes((trained / "data" / path.name).read_bytes())
    recipe = few(data, trained / "run")
    assert {recipe.unfinished(stage) for stage in recipe.stages} == {""}
    write(data / "train-000.parquet", [row | dict(question="What is that?") for row in ROWS])
    why = {stage.name: recipe.unfinished(stage) for stage in recipe.stages}
    assert {name for name, reason in why.items() if "data changed" in reason} == {"features", *PHASES[1:]}


def test_another_size_of_the_model_makes_everything_stale(trained, monkeypatch):
    monkeypatch.setattr(stages, "LITE", replace(TINY, tts_blocks=2))
    recipe = few(trained / "data", trained / "run")
    why = {stage.name: recipe.unfinished(stage) for stage in recipe.stages}
    assert "plan changed" in why["tokenizer"] and "codec" in why and why["codec"] == ""
    monkeypatch.setattr(stages, "LITE", replace(TINY, codec=CodecConfig("lite", 32, 24)))
    recipe = few(trained / "data", trained / "run")
    assert "plan changed" in recipe.unfinished(recipe.stages[0])


def test_one_stage_alone_says_which_one_it_lacks(small, capsys, monkeypatch):
    recipe = few(small / "data", small / "run")
    with pytest.raises(FileNotFoundError) as error:
        recipe.work_off("phase2")
    assert_one_sentence(error, "phase2 needs text")
    with pytest.raises(ValueError, match="no stage 'phase9': choose one of codec, encode, tokenizer, text"):
        recipe.work_off("phase9")
    monkeypatch.chdir(small)
    assert main(["train", "--data", "data", "--run", "other", "--only", "phase2"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["train", "--data", "nowhere", "--run", "other"]) == 1
    assert "make data" in capsys.readouterr().err


def test_an_interrupted_codec_is_not_done_and_goes_on(small, monkeypatch, capsys):
    """Its five plans are one stage: those that are finished are not run again."""
    monkeypatch.setattr(stages, "load_ears", lambda name: torch.nn.Module())
    plans = tuple(replace(plan, steps=2, batch=2, seconds=0.4, features=0.0, heard=0.0) for plan in CODEC_PLANS[:3])
    own, seen = stages.train_codec, []

    def dies(codec, waves, folder, plan, say, ears):
        if plan.name == "codec_polish" and not seen:
            seen.append(plan.name)
            raise KeyboardInterrupt
        own(codec, waves, folder, plan, say, ears)

    monkeypatch.setattr(stages, "train_codec", dies)
    recipe = lite_recipe(small / "data", small / "run", codec=plans)
    with pytest.raises(KeyboardInterrupt):
        recipe.work_off("codec")
    assert recipe.manifest("codec") is None and not (recipe.out / "codec.safetensors").exists()
    capsys.readouterr()
    recipe.work_off("codec")
    said = capsys.readouterr().out
    assert "codec  goes on at step 2/2" in said and "codec_words  goes on at step 2/2" in said
    assert "codec_polish  step 2/2" in said and recipe.manifest("codec") is not None


@pytest.mark.parametrize("preset, said", [("lite", "not available here"), ("smollm2", "trains on the CPU")])
def test_a_gpu_that_cannot_be_used_is_told_in_one_sentence(preset, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: preset == "smollm2")
    assert main(["train", "--preset", preset, "--device", "cuda", "--run", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


# --- the figures and the card ------------------------------------------------------------------------------


@pytest.fixture
def measured(trained, monkeypatch, tmp_path):
    """`evaluate` without Whisper, with a model that answers the first question alone, in one sentence; a README."""

    def answers(assistant, rows, task, say=print, seed=0, own=figures.answers_to):
        return [replace(reply, text="It is one.") for reply in own(assistant, rows[:1], task, say, seed)] * len(rows)

    monkeypatch.setattr(evaluate, "load_whisper", lambda name, full: None)
    for module in (evaluate, figures):
        monkeypatch.setattr(module, "transcribe", lambda whisper, waves, rate: ["it is one"] * len(waves))
        monkeypatch.setattr(module, "answers_to", answers)
    (tmp_path / "README.md").write_text("a\n{}\n{}\nz\n".format(*evaluate.FIGURES))
    monkeypatch.setattr(evaluate, "README", tmp_path / "README.md")
    yield trained
    (trained / "run" / "weights" / "card.json").unlink(missing_ok=True)


def test_the_card_of_a_run_says_how_its_weights_were_made_and_how_good_they_are(
        measured, tmp_path, monkeypatch, capsys):
    weights = measured / "run" / "weights"
    evaluate.evaluate_lite(measured / "data", seeds=2, weights=weights, details=tmp_path / "details.json")
    card, details = read_card(weights), json.loads((tmp_path / "details.json").read_text())
    assert card["figures"] == details["figures"] and len(card["figures"]) == 13
    assert card["clips"] == dict.fromkeys(("facts", "voices", "both", "phrasings"), 2)
    assert card["stages"]["phase3"]["plan"]["steps"] == 3 and set(card["minutes"]) == set(card["stages"])
    assert card["stages"]["text"]["plan"]["kind"] == "LitePhase"
    assert card["sha256"]["final.safetensors"] == sha256_of(weights / "final.safetensors")
    assert load_model(weights) is not None               # whose files are as the card says
    assert (tmp_path / "README.md").read_text().count("|") == 0
    assert "exact answers" in capsys.readouterr().out

    times = {name: 1.5 for name in evaluate.TIMES}
    write_card(weights, card | dict(figures=card["figures"] | times))
    monkeypatch.setattr(evaluate, "measure", lambda *_: details)
    evaluate.evaluate_lite(measured / "data", seeds=1, weights=weights, keep_times=True)
    assert {name: read_card(weights)["figures"][name] for name in times} == times


@pytest.mark.parametrize("how", [dict(clips=1), dict(sets="dev")])
def test_a_quick_look_writes_neither_card_nor_readme(measured, tmp_path, monkeypatch, how):
    """Neither beside a run's weights nor beside the committed ones."""
    readme = (tmp_path / "README.md").read_text()
    some = dict(exact=1.0, wer=2.0, whisper_wer=3.0, wer_of_each_seed=[2.0], points=4.0, same=5.0, first_audio_ms=6.0,
                rtf=0.5)
    seen = []

    def measure(assistant, folder, rows, sentences, data, clips, seeds):
        seen.append([len(rows["facts"]), len(sentences)])
        return dict.fromkeys((*evaluate.SETS, "transcript", "spoken", "codec", "text", "int8"), some)

    monkeypatch.setattr(evaluate, "measure", measure)
    monkeypatch.setattr(evaluate, "spoken_answers", lambda data: [(split, "a", torch.zeros(9)) for split in
                                                                  ("train", "dev", "test", "dev", "test")])
    committed = tmp_path / "checkpoints" / "lite"
    committed.mkdir(parents=True)
    for path in (measured / "run" / "weights").iterdir():
        (committed / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(evaluate, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr("omni_lite.load.CHECKPOINTS", tmp_path / "checkpoints")
    for weights in (measured / "run" / "weights", None):
        evaluate.evaluate_lite(measured / "data", seeds=1, weights=weights, **how)
        assert not ((weights or committed) / "card.json").exists()
    assert (tmp_path / "README.md").read_text() == readme
    assert seen == [[1, 1] if "clips" in how else [2, 2]] * 2


def test_the_committed_weights_keep_what_their_card_says_and_change_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "CHECKPOINTS", tmp_path)
    folder = tmp_path / "lite"
    save_packed(folder / "text.safetensors", {"w": torch.ones(2, 2)})
    write_card(folder, dict(figures={"x": 1.0}, sha256={}, date="then"))
    monkeypatch.chdir(tmp_path)
    for name in (folder, Path("lite")):                  # the same folder, however it is written
        card = evaluate.card(tmp_path / "data", name, {"x": 2.0})
        assert card["figures"] == {"x": 2.0} and card["date"] == "then" and "history.md" in card["made_by"]
        assert card["sha256"] == {"text.safetensors": sha256_of(folder / "text.safetensors")}
    (tmp_path / "README.md").write_text("a\n<!-- figures -->\nold\n<!-- /figures -->\nz\n")
    evaluate.put_between(tmp_path / "README.md", evaluate.table({"x": 2.0}), evaluate.FIGURES)
    assert (tmp_path / "README.md").read_text() == (
        "a\n<!-- figures -->\n| figure | measured |\n|---|---|\n| x | 2.0 |\n<!-- /figures -->\nz\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        evaluate.put_between(tmp_path / "README.md", "", ("<!-- no -->", "<!-- such -->"))


def test_an_unfinished_run_has_no_card_and_says_so_before_anything_is_measured(small, monkeypatch):
    monkeypatch.setattr(evaluate, "load_assistant", None)                  # which would be called next
    with pytest.raises(ValueError) as error:
        evaluate.evaluate_lite(small / "data", weights=small / "run" / "weights")
    assert_one_sentence(error, "weights", "codec is not done")


def test_what_cannot_be_measured_is_said_before_anything_is(small, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_assistant", None)                  # which would be called next
    monkeypatch.chdir(small)
    for option in ("--clips", "--seeds"):
        for number in ("0", "-1"):
            assert main(["evaluate", "--data", "data", option, number]) == 1
            err = capsys.readouterr().err
            assert f"{option} {number} leaves nothing to" in err and len(err.strip().splitlines()) == 1
    assert main(["evaluate", "--preset", "smollm2", "--clips", "0"]) == 1
    assert "--clips 0 leaves nothing to measure" in capsys.readouterr().err
    with pytest.raises(ValueError, match="lacks spoken answers of the dev split.*make data"):
        evaluate.evaluate_lite(small / "data", "dev")
    write_card(small / "lite", dict(figures={}))
    with pytest.raises(ValueError, match="card.json does not state times: leave out --keep-times"):
        evaluate.evaluate_lite(small / "data", keep_times=True, weights=small / "lite")


def test_only_presets_with_figures_can_be_evaluated(capsys):
    with pytest.raises(SystemExit) as status:
        main(["evaluate", "--preset", "mini-omni"])
    assert status.value.code == 2 and "invalid choice: 'mini-omni'" in capsys.readouterr().err
    assert main(["evaluate", "--preset", "smollm2", "--weights", "x"]) == 1
    assert "--weights is for the lite preset" in capsys.readouterr().err


def test_half_of_a_set_has_every_skill_as_often_as_the_whole():
    rows = [Row("test", i, "q", "a", skill="abcd"[i % 4]) for i in range(32)]
    half = evaluate.first_half(sorted(rows, key=lambda row: (row.index % 5, row.index)))
    assert Counter(row.skill for row in half) == dict.fromkeys("abcd", 4)


# --- the committed subset ----------------------------------------------------------------------------------


def test_the_subset_has_the_codes_of_the_codec_that_is_asked_for(trained, tmp_path, capsys, monkeypatch):
    """`data --data X --weights W`: of two folders of weights each gives its own codes."""
    monkeypatch.setattr(subset, "write_subset", lambda *args, own=subset.write_subset: own(*args, train=4, test=3))
    torch.manual_seed(7)
    other = tmp_path / "other"
    save_packed(other / "codec.safetensors", stages.LiteSNAC(TINY.codec).state_dict())
    found = {}
    for weights in (trained / "run" / "weights", other):
        out = tmp_path / f"subset of {weights.name}"
        assert main(["data", "--data", str(trained / "data"), "--out", str(out), "--weights", str(weights)]) == 0
        picked = read_rows([out / "train.parquet"])
        codec = trained_codec(weights)
        spoken = {text: wave for _, text, wave in corpus.spoken_answers(trained / "data")}
        assert len(picked) >= 3 and all(len(row.question_wav) == 6400 for row in picked)
        for row in picked:
            assert torch.equal(row.codes, codec.encode(spoken[row.answer][None, None])[0])
        found[weights] = {row.answer: row.codes.tolist() for row in picked}
        assert {path.stem for path in out.iterdir()} == {"train", "text", *(
            f"{split}_{kind}" for split in ("dev", "test") for kind in evaluate.SETS)}
    assert found[other] != found[trained / "run" / "weights"] and "questions" in capsys.readouterr().out


# --- what the phases draw from -----------------------------------------------------------------------------


def test_features_of_the_subset_are_made_again_where_its_questions_changed(trained, tmp_path, monkeypatch):
    run = trained / "run"
    assert len(list(run.glob("subset-*.f16"))) == 1      # from the phase "final"
    (tmp_path / "few").mkdir()
    write(tmp_path / "few" / "train.parquet", ROWS[1:4])
    monkeypatch.setattr(corpus, "SUBSET", tmp_path / "few")
    drawn = corpus.voice_corpus(trained / "data", run, run / "weights")
    assert isinstance(drawn.store, FeatureStore) and len(drawn.store) == 3 and len(drawn.heard) == 3
    tokenizer = load_tokenizer(run / "weights")
    assert [tokenizer.decode(list(question)).strip() for _, question, _, _ in drawn.heard] == [
        row["question"] for row in ROWS[1:4]]


def test_takes_are_four_recordings_with_turns_in_their_frames(trained):
    takes = dict(corpus.read_takes(trained / "run" / "takes.parquet"))
    codes = corpus.train_codes(trained / "run")
    assert set(takes) <= set(codes) == {f"It is {word}." for word in WORDS}
    for text, some in takes.items():
        assert len(some) == 4 and torch.equal(some[0][0], codes[text])
        for i, (_, turns) in enumerate(some):
            assert (turns.diff() >= 0).all() and abs(float(turns[-1]) - 12_000 / 2048 - i / 4) < 1e-3


def test_codes_are_those_of_the_trained_codec(trained):
    codec = trained_codec(trained / "run" / "weights")
    spoken = {text: wave for _, text, wave in corpus.spoken_answers(trained / "data")}
    rows = pq.read_table(trained / "run" / "codes.parquet").to_pylist()
    assert len(rows) == 7
    for row in rows:
        assert torch.equal(codes_from_text(row["answer_snac"]), codec.encode(spoken[row["answer"]][None, None])[0])


def test_what_answers_many_questions_is_said_most(tmp_path):
    rows = [Row("text", i, f"q{i}", "yes") for i in range(10)] + [Row("text", 10, "r", "once")]
    spoken, takes = corpus.all_spoken(dict.fromkeys(("yes", "once", "extra"), torch.zeros(7, 2)), rows, tmp_path, tuple)
    said = Counter("".join(answer) for _, answer, _ in spoken)
    assert said == {"yes": 3 * 4, "once": 3, "extra": 1} and takes == {}
    assert "".join(spoken[-1][0]) == "Repeat after me: extra"


def test_natural_voices_are_heard_for_a_third_but_none_too_often():
    assert corpus.how_often(["espeak:a"] * 70 + ["kokoro:b"] * 10) == [1] * 70 + [3] * 10
    assert corpus.how_often(["flite:a"] * 90 + ["kokoro:b"]) == [1] * 90 + [corpus.NATURAL_TIMES]
    assert corpus.how_often(["", "kokoro:b"]) == [1, 1] and corpus.how_often(["", ""]) == [1, 1]


def test_facts_of_rare_skills_are_read_more_often():
    rows = [Row("text", 0, f"What is {i}?", f"Capital {i}.", skill="capitals", fact="c") for i in range(300)]
    rows += [Row("text", 0, f"How many {i} {j}?", f"Unit {i}.", skill="units", fact="u")
             for i in range(75) for j in range(4)]
    rows += [Row("text", 0, "Are you there?", "Yes.", skill="small talk", fact="s")]
    rows += [Row("text", 0, f"Repeat: {i}", str(i), skill="repeat", fact="r") for i in range(5000)]
    times = Counter(row.answer for row in corpus.balanced(rows) if row.skill != "repeat")
    assert {times[f"Capital {i}."] for i in range(300)} == {10}          # one phrasing, ten times
    assert {times[f"Unit {i}."] for i in range(75)} == {20}              # a quarter as many facts, twice as often
    assert times["Yes."] == 40                                           # never more than four times as often
    assert len(corpus.balanced(rows)) == round(1.1 * times.total())


def test_word_salads_come_after_the_sentences_and_natural_voices_last(tmp_path):
    for name in ("heard_vocoder-000", "heard_festival-002", "heard_world-000", "heard_natural-014", "heard_words-000",
                 "heard-001", "heard-000", "spoken-000"):
        (tmp_path / f"{name}.parquet").touch()
    assert [path.stem for path in corpus.extras(tmp_path, "heard")] == ["heard-000", "heard-001", "heard_words-000",
                                                                        "heard_natural-014", "heard_world-000",
                                                                        "heard_festival-002", "heard_vocoder-000"]


def test_a_small_corpus_reads_hears_and_speaks_its_rows(small):
    stages.make_tokenizer(Place(small / "data", small, small, small, lambda _: None))
    tokenizer = load_tokenizer(small)
    rows = read_rows([small / "data" / "train-000.parquet"], sound=False)
    codes = torch.arange(14).reshape(7, 2)
    few_rows = corpus.small_corpus(tokenizer, [replace(row, codes=codes) for row in rows[:4]] + rows[4:], None, rows)
    assert [clip for clip, _ in few_rows.transcribed] == [clip for clip, *_ in few_rows.heard] == list(range(6))
    assert tokenizer.decode(list(few_rows.heard[2][2])).strip() == rows[2].answer
    assert len(few_rows.spoken) == 4 and len(few_rows.written) >= 6 and few_rows.copied


def test_the_first_checkpoint_holds_all_that_text_passes_through(tmp_path):
    """Special tokens of the audio streams stand beside every text token: another random start must not change what it
    says."""
    torch.manual_seed(1)
    trained, other, third = (OmniModel(TINY).eval() for _ in range(3))
    path = save_phase(tmp_path / "text.safetensors", trained, LITE_PHASES[0])
    vocab = TINY.vocab
    text, audio = torch.tensor([[vocab.input_t, 5, vocab.eot, vocab.answer_t]]), torch.full((1, 7, 4), vocab.pad_a)
    audio[:, :, 0] = vocab.input_a
    for model in (other, third):
        load_over(model, path)
    torch.testing.assert_close(other(text, audio)[0], trained(text, audio)[0], rtol=0.05, atol=0.01)
    assert torch.equal(other(text, audio)[0], third(text, audio)[0])
    codes = other.audio_embed.weight.view(7, vocab.audio_size, -1)[:, : vocab.codebook]
    assert (codes == 0).all()
