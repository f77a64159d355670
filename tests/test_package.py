"""What the project says of itself in several places must agree."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

from omni_lite import recipe

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Each room may import only rooms above it (the bottom ones are the command line's own).
ROOMS = ("vocab config precision audio codec streams weights release baichuan hear model generate fast data assistant "
         "guide reading likeness train by_ear preference clarity listen evaluate rehearsal recipe align widgets plots "
         "checks talk").split()


def required() -> list[str]:
    extras = PROJECT["optional-dependencies"]
    return PROJECT["dependencies"] + extras["notebooks"] + extras["test"] + extras["data"]


def test_constraints_pin_what_pyproject_allows():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for requirement in required():
        name, operator, version = re.match(r"([\w-]+)(>=|==|<)([\d.]+)", requirement).groups()
        assert name in pins, f"constraints.txt does not pin {name}"
        pinned, least = ([int(n) for n in re.findall(r"\d+", v)] for v in (pins[name], version))
        allowed = pinned < least if operator == "<" else pinned >= least
        assert allowed, f"{name}: pinned {pins[name]}, but pyproject.toml wants {operator}{version}"
    assert pins["torch"] == "2.13.0"


def test_conda_environment_is_the_project_itself():
    text = (ROOT / "environment.yml").read_text()
    assert "python=3.11" in text and "-e .[notebooks,test]" in text and "-c constraints.txt" in text
    packages = re.findall(r"^ +- ([^\n]+)$", text, re.M)
    assert packages == ["conda-forge", "python=3.11", "pip", "pip:", "-c constraints.txt", "-e .[notebooks,test]"]
    assert PROJECT["requires-python"] == ">=3.11"


def test_rooms_import_only_rooms_above_them():
    for path in sorted((ROOT / "omni_lite").glob("*.py")):
        if path.stem in ("__init__", "__main__"):
            continue
        assert path.stem in ROOMS, f"{path.name} is no room of the house"
        above = ROOMS[: ROOMS.index(path.stem)]
        for node in ast.parse(path.read_text()).body:                    # imports inside functions are late ones
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("omni_lite"):
                named = [node.module.removeprefix("omni_lite.")] if node.module != "omni_lite" else [
                    alias.name for alias in node.names]
                for name in named:
                    assert name in above, f"{path.name} imports {name}, which is not above it"


def test_the_library_never_imports_the_voices():
    for path in (ROOT / "omni_lite").glob("*.py"):
        assert not re.search(r"^\s*(import|from) (piper|py_nanotts|kokoro)", path.read_text(), re.M), path.name


def test_public_functions_have_docstrings():
    for path in (ROOT / "omni_lite").glob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path.name
        for node in tree.body:
            overload = any(getattr(d, "id", "") == "overload" for d in getattr(node, "decorator_list", []))
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and not overload:
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_the_readme_quotes_the_card(tmp_path):
    card = ROOT / "data" / "checkpoints" / "lite" / "card.json"
    text = (ROOT / "README.md").read_text()
    assert recipe.table(json.loads(card.read_text())["figures"]) in text
    copy = tmp_path / "README.md"
    copy.write_text(text)
    recipe.quote_in_readme(copy, {"a": 1.0})
    assert "| a | 1.0 |" in copy.read_text() and copy.read_text().startswith(text[:200])
    recipe.quote_in_readme(copy, {"b": 2.0})
    assert "| a | 1.0 |" not in copy.read_text()


def test_no_file_is_too_large_for_the_repository():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in tracked if name and (ROOT / name).is_file()}
    assert all(size < 20e6 for size in sizes.values()), max(sizes, key=sizes.get)
    assert sum(sizes.values()) < 60e6
