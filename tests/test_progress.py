"""The progress store: what makes a stage stale, what a killed one leaves, and what is made again.

Three stages stand for a recipe: "first" copies a data file into two weight files, "second" reads one of them, "third"
reads "second".
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from omni_lite import loop
from omni_lite.checkpoints import pack_int, save_safetensors
from omni_lite.loop import Loop
from omni_lite.recipes import progress
from omni_lite.recipes.lite.phases import LITE_PHASES
from omni_lite.recipes.muon import Muon
from omni_lite.recipes.progress import ORIGINS, Place, Recipe, Stage, digest_of, fingerprint, plain
from tests import assert_one_sentence


@dataclass(frozen=True)
class Plan:
    steps: int = 2


@pytest.fixture
def made(tmp_path) -> tuple[Recipe, list[str]]:
    """A recipe of three stages that are all done; the list holds the names of those that are made from now on."""
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    (data / "text.parquet").write_bytes(b"some texts")
    (data / "other.parquet").write_bytes(b"that no stage reads")
    names: list[str] = []

    def first(at: Place) -> list[Path]:
        names.append("first")
        at.out.mkdir(exist_ok=True)
        for name in ("a", "b"):
            (at.out / f"{name}.safetensors").write_bytes((at.data / "text.parquet").read_bytes()[:4])
        return [at.out / "a.safetensors", at.out / "b.safetensors"]

    def later(name: str, needs: str) -> Stage:
        def make(at: Place) -> list[Path]:
            names.append(name)
            (at.out / name).write_bytes(b"from " + (at.out / needs).read_bytes())
            return [at.out / name]

        return Stage(name, make, Plan(), ("first",) if name == "second" else ("second",))

    stages = (Stage("first", first, Plan(), (), ("text*.parquet",)), later("second", "a.safetensors"),
              later("third", "second"))
    recipe = Recipe("toy", stages, data, run, run / "weights")
    recipe.work_off()
    assert names == ["first", "second", "third"]
    names.clear()
    return recipe, names


def with_stage(recipe: Recipe, name: str, **changes) -> Recipe:
    """The same recipe with one stage changed."""
    return replace(recipe, stages=[replace(stage, **changes) if stage.name == name else stage
                                   for stage in recipe.stages])


def why(recipe: Recipe) -> list[str]:
    """Why each stage has to be made, "" where it is done."""
    return [recipe.unfinished(stage) for stage in recipe.stages]


def stale(reason: str, *names: str) -> bool:
    """Whether this is why a stage is made again, and all of these are named as changed or spoilt, and nothing else."""
    found = re.fullmatch(r"stale: (?:(.+) changed|(\S+) is missing or was altered)", reason)
    wanted = [ORIGINS.get(name, name) for name in names]
    return found is not None and (found[1] or found[2]).split(", ") == wanted


# --- done, and stale ---------------------------------------------------------------------------------------


def test_a_second_start_makes_nothing(made, capsys):
    recipe, names = made
    capsys.readouterr()
    recipe.work_off()
    assert names == [] and why(recipe) == ["", "", ""] and capsys.readouterr().out == ""
    assert set(recipe.minutes()) == {"first", "second", "third"} and not list((recipe.run / "work").iterdir())
    manifest = recipe.manifest("first")
    assert manifest["outputs"].keys() == {"weights/a.safetensors", "weights/b.safetensors"}
    assert manifest["origin"]["plan"] == dict(kind="Plan", steps=2)
    assert manifest["machine"]["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_a_changed_plan_is_named_and_makes_the_stage_anew(made):
    recipe, names = made
    recipe = with_stage(recipe, "second", plan=Plan(3))
    reasons = why(recipe)
    assert reasons[0] == reasons[2] == "" and stale(reasons[1], "plan")
    recipe.work_off()
    assert names == ["second"]                           # its output is the same, so "third" stays as it is
    assert why(recipe) == ["", "", ""]


def test_a_changed_data_file_makes_the_stage_and_those_behind_it_anew(made):
    recipe, names = made
    (recipe.data / "other.parquet").write_bytes(b"changed")
    assert why(recipe) == ["", "", ""]
    (recipe.data / "text.parquet").write_bytes(b"Some texts")
    assert stale(why(recipe)[0], "data")
    recipe.work_off()
    assert names == ["first", "second", "third"] and why(recipe) == ["", "", ""]
    names.clear()
    (recipe.data / "text-more.parquet").write_bytes(b"one more file of the pattern")
    assert stale(why(recipe)[0], "data")
    recipe.work_off()
    assert names == ["first"]                            # the same weights: nothing behind it is stale


def test_another_version_of_the_code_makes_every_stage_stale(made, monkeypatch):
    recipe, _ = made
    monkeypatch.setattr(progress, "__version__", "9.9")
    assert all(stale(reason, "code") for reason in why(recipe))


def test_several_reasons_are_all_named(made, monkeypatch):
    recipe, _ = made
    monkeypatch.setattr(progress, "SEED", 1)
    (recipe.data / "text.parquet").write_bytes(b"Some texts")
    assert stale(why(with_stage(recipe, "first", plan=None))[0], "plan", "seed", "data")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"x" * path.stat().st_size)])
def test_a_missing_or_altered_output_is_made_again(made, spoil):
    recipe, names = made
    spoil(recipe.out / "b.safetensors")
    assert stale(why(recipe)[0], "b.safetensors")
    recipe.work_off()
    assert names == ["first"] and why(recipe) == ["", "", ""]


def test_an_output_that_changed_makes_what_needs_it_stale(made):
    recipe, names = made

    def make(at: Place) -> list[Path]:
        names.append("second")
        (at.out / "second").write_bytes(b"another one")
        return [at.out / "second"]

    recipe = with_stage(recipe, "second", make=make, plan=Plan(4))
    recipe.work_off("second")
    assert names == ["second"]
    assert why(recipe)[:2] == ["", ""] and stale(why(recipe)[2], "needed")


def test_large_files_are_known_by_size_beginning_and_end(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "CHECKED_BYTES", 8)
    path, found = tmp_path / "large", set()
    for content in (b"0123456789", b"1123456789", b"0123456788", b"01234556789"):
        path.write_bytes(content)
        found.add(digest_of(path))
    assert len(found) == 4


# --- killed ------------------------------------------------------------------------------------------------


def test_a_stage_that_dies_between_two_outputs_is_not_done(made):
    """And what it overwrote makes neither the old nor the new one count as done."""
    recipe, names = made

    def dies(at: Place) -> list[Path]:
        (at.out / "a.safetensors").write_bytes(b"new")
        raise OSError("no space left on device")

    good = recipe.stages[0].make
    recipe = with_stage(recipe, "first", make=dies, plan=Plan(5))
    with pytest.raises(OSError, match="no space left"):
        recipe.work_off()
    assert stale(why(recipe)[0], "plan")
    before = with_stage(recipe, "first", make=good, plan=Plan(2))           # the plan of the old manifest
    assert stale(why(before)[0], "a.safetensors")
    recipe = with_stage(recipe, "first", make=good)
    recipe.work_off()
    assert names == ["first"] and why(recipe) == ["", "", ""]


def test_a_stage_that_dies_the_first_time_is_not_done(tmp_path):
    def dies(at: Place) -> list[Path]:
        at.out.mkdir()
        (at.out / "one").write_text("half of it")
        raise KeyboardInterrupt

    recipe = Recipe("toy", [Stage("only", dies)], tmp_path, tmp_path / "run", tmp_path / "run" / "weights")
    with pytest.raises(KeyboardInterrupt):
        recipe.work_off()
    assert recipe.manifest("only") is None and why(recipe) == ["not done yet"]


def training(tmp_path: Path, plan: Plan, stop_at: int | None = None) -> tuple[Recipe, list[int]]:
    """A recipe of one stage that trains; the list holds the steps it takes. `stop_at` kills it there."""
    taken: list[int] = []

    def make(at: Place) -> list[Path]:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)

        def batches(first: int) -> Iterator[torch.Tensor]:
            return islice((torch.full((2, 4), 1.0 + i) for i in range(100)), first, None)

        def losses(x: torch.Tensor) -> dict[str, torch.Tensor]:
            if len(taken) == stop_at:
                raise KeyboardInterrupt
            return {"loss": model(x).square().mean()}

        Loop("toy", model, list(model.parameters()), plan.steps, 1e-2, 1e-4, at.work, say=lambda _: None,
             each=lambda step, _: taken.append(step)).run(batches, losses)
        save_safetensors(at.out / "toy.safetensors", pack_int(model.state_dict()))
        return [at.out / "toy.safetensors"]

    return Recipe("toy", [Stage("toy", make, plan)], tmp_path, tmp_path / "run", tmp_path / "run" / "weights"), taken


def test_a_killed_training_goes_on_and_work_of_another_plan_is_not_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    recipe, taken = training(tmp_path, Plan(6), stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        recipe.work_off()
    assert taken == [0, 1, 2]
    other, taken = training(tmp_path, Plan(4))
    other.work_off()
    assert taken == [0, 1, 2, 3]                         # from the beginning
    recipe, taken = training(tmp_path, Plan(6))
    recipe.work_off()
    assert taken == [3, 4, 5]                            # its own work is still there
    assert why(recipe) == [""]


def test_a_weight_file_that_is_removed_is_trained_again(tmp_path):
    recipe, taken = training(tmp_path, Plan(3))
    recipe.work_off()
    path = recipe.out / "toy.safetensors"
    before = path.read_bytes()
    path.unlink()
    recipe, taken = training(tmp_path, Plan(3))
    recipe.work_off()
    assert taken == [0, 1, 2] and path.read_bytes() == before
    recipe, taken = training(tmp_path, Plan(3))
    recipe.work_off()
    assert taken == []


def test_recipes_write_files_whole_or_not_at_all():
    """Text, JSON, tensors and arrays go through `atomic_write`, which yields `temporary`."""
    writes = re.compile(r"\.write_(?:text|bytes)\(|json\.dump\(|torch\.save\(|np\.save\(|pq\.write_table\("
                        r"|\bsave_file\(")
    lines = [line for path in Path(progress.__file__).parent.rglob("*.py") for line in path.read_text().splitlines()]
    assert [line for line in lines if writes.search(line) and "temporary" not in line] == []
    assert any(writes.search(line) for line in lines)


# --- one stage alone, and what is refused ------------------------------------------------------------------


def test_one_stage_alone_is_made_only_if_it_has_to_be(made):
    recipe, names = made
    recipe.work_off("second")
    assert names == []
    (recipe.out / "second").unlink()
    recipe.work_off("second")
    assert names == ["second"]


def test_a_stage_whose_needs_are_missing_and_an_unknown_one_are_refused_in_one_sentence(made, tmp_path):
    recipe, names = made
    fresh = replace(recipe, run=tmp_path / "fresh", out=tmp_path / "fresh" / "weights")
    with pytest.raises(FileNotFoundError) as missing:
        fresh.work_off("second")
    assert_one_sentence(missing, "second needs first", "run first first")
    with pytest.raises(ValueError) as unknown:
        fresh.work_off("fourth")
    assert_one_sentence(unknown, "no stage 'fourth'", "first, second, third")
    (recipe.data / "text.parquet").unlink()
    with pytest.raises(FileNotFoundError) as nothing:
        recipe.work_off("first")
    assert_one_sentence(nothing, "text*.parquet", "make data")
    assert names == []


def test_a_damaged_manifest_is_named(made):
    recipe, _ = made
    path = recipe.run / "stages" / "first.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError) as error:
        recipe.work_off()
    assert_one_sentence(error, "first.json", "not valid JSON", "delete it")


# --- fingerprints ------------------------------------------------------------------------------------------


def test_every_phase_has_a_plan_of_its_own_as_plain_data():
    plans = [plain(phase) for phase in LITE_PHASES]
    assert json.loads(json.dumps(plans)) == plans
    assert len({fingerprint(plan) for plan in plans}) == len(plans)
    changed = replace(LITE_PHASES[0], losses=(replace(LITE_PHASES[0].losses[0], weight=0.9),))
    assert fingerprint(plain(changed)) != fingerprint(plans[0])


def test_a_plan_that_is_not_plain_data_is_refused():
    for thing in (torch.zeros(2), nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=f"a {type(thing).__name__}: it must be plain data"):
            plain(dict(a=[thing]))
    assert plain(Plan()) != plain(dict(steps=2))         # two kinds with the same fields differ
    assert Muon.__name__ not in json.dumps(plain(LITE_PHASES[0]))
