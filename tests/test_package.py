"""What the project says of itself in several places must agree."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from omni_lite.recipes.lite.evaluate import FIGURES, put_between, table

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required() -> list[str]:
    extras = PROJECT["optional-dependencies"]
    return PROJECT["dependencies"] + extras["notebooks"] + extras["test"] + extras["data"]


def test_constraints_pin_what_pyproject_allows():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for requirement in required():
        name = re.match(r"[\w-]+", requirement).group()
        assert name in pins, f"constraints.txt does not pin {name}"
        bounds = re.findall(r"(>=|==|<)([\d.]+)", requirement)
        assert bounds, requirement
        for operator, version in bounds:
            pinned, bound = ([int(n) for n in re.findall(r"\d+", v)] for v in (pins[name], version))
            allowed = pinned < bound if operator == "<" else pinned >= bound
            assert allowed, f"{name}: pinned {pins[name]}, but pyproject.toml wants {operator}{version}"
    assert pins["torch"] == "2.13.0"


def test_conda_environment_is_the_project_itself():
    text = (ROOT / "environment.yml").read_text()
    assert "python=3.11" in text and "-e .[notebooks,test]" in text and "-c constraints.txt" in text
    packages = re.findall(r"^ +- ([^\n]+)$", text, re.M)
    assert packages == ["conda-forge", "python=3.11", "pip", "pip:", "-c constraints.txt", "-e .[notebooks,test]"]
    assert PROJECT["requires-python"] == ">=3.11"


def test_the_library_never_imports_the_voices():
    for path in (ROOT / "omni_lite").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) (piper|py_nanotts|kokoro)", path.read_text(), re.M), path.name


def test_the_readme_quotes_the_card(tmp_path):
    card = ROOT / "data" / "checkpoints" / "lite" / "card.json"
    text = (ROOT / "README.md").read_text()
    assert table(json.loads(card.read_text())["figures"]) in text
    copy = tmp_path / "README.md"
    copy.write_text(text)
    put_between(copy, table({"a": 1.0}), FIGURES)
    assert "| a | 1.0 |" in copy.read_text() and copy.read_text().startswith(text[:200])
    put_between(copy, table({"b": 2.0}), FIGURES)
    assert "| a | 1.0 |" not in copy.read_text()
    with pytest.raises(ValueError, match="README.md lacks the marks"):
        put_between(copy, "", ("<!-- nowhere -->", "<!-- /nowhere -->"))


def test_no_file_is_too_large_for_the_repository():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in tracked if name and (ROOT / name).is_file()}
    assert all(size < 20e6 for size in sizes.values()), max(sizes, key=sizes.get)
    assert sum(sizes.values()) < 60e6
