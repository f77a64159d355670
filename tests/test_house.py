"""The house: which part may import which, how large the core and each file may be, and that all of it is explained."""

import ast
import subprocess
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "omni_lite"
FILES = sorted(PACKAGE.rglob("*.py"))
CORE, CORE_LINES, FILE_LINES = "core", 3800, 600
# What each part may import besides itself: `omni_lite/*.py` is the core, every folder is a wing.
MAY_IMPORT = {
    CORE: set(),
    "litesnac": {CORE},
    "recording": {CORE},
    "interop": {CORE},
    "fast": {CORE, "interop"},
    "voice": {CORE},
    "chat": {CORE, "interop", "voice"},
    "recipes": {CORE, "recording", "litesnac", "interop", "fast", "voice", "chat"},
    "course": {CORE, "recording", "litesnac", "interop", "fast", "chat", "recipes"},
}
ENTRANCES = ("load.py", "cli.py")            # of the core: they may import wings inside functions


def module_of(path: Path) -> str:
    """omni_lite/fast/stack.py -> "omni_lite.fast.stack"; omni_lite/fast/__init__.py -> "omni_lite.fast"."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def part_of(module: str) -> str:
    """The wing that a module stands in, or "core"."""
    return next((name for name in module.split(".")[1:2] if (PACKAGE / name).is_dir()), CORE)


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules of this package that a file imports; False for those that are imported only inside a function.

    An import for type checking alone counts as one inside a function: it does not happen at run time.
    """
    tree = ast.parse(path.read_text())
    late = set()
    for node in ast.walk(tree):
        lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if lazy or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            late |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            base = node.module or ""
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from ((name, id(node) not in late) for name in names if name.split(".")[0] == "omni_lite")


def test_the_reader_of_imports_sees_all_kinds(tmp_path):
    file = tmp_path / "some.py"
    file.write_text("import omni_lite.vocab\nfrom omni_lite import fast\nif TYPE_CHECKING:\n"
                    "    from omni_lite.interop.snac import Snac\n\n\ndef f():\n    from omni_lite.fast import quick\n")
    assert sorted(imported(file)) == [
        ("omni_lite.fast", False), ("omni_lite.fast", True), ("omni_lite.interop.snac", False),
        ("omni_lite.vocab", True)]
    assert [part_of(name) for name in ("omni_lite", "omni_lite.vocab", "omni_lite.fast.stack")] == [CORE, CORE, "fast"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = part_of(module_of(path))
    for name, at_once in imported(path):
        assert name in MODULES, f"{path.name} imports {name}, which does not exist"
        part = part_of(name)
        entrance = own == CORE and path.name in ENTRANCES and not at_once and part != "course"
        assert part == own or part in MAY_IMPORT[own] or entrance, f"{path.name} of {own} imports {name} of {part}"


def test_modules_do_not_import_each_other_in_a_circle():
    """What the entrances import inside functions is left out."""
    graph = {module: {name for name, at_once in imported(path) if at_once or path.name not in ENTRANCES} - {module}
             for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_the_core_stays_small():
    lines = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py")}
    longest = sorted(lines, key=lambda name: -lines[name])[:5]
    assert sum(lines.values()) <= CORE_LINES, f"the longest are {', '.join(f'{n} {lines[n]}' for n in longest)}"


def test_no_file_is_too_long_to_read():
    tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"], cwd=ROOT,
                             capture_output=True, text=True, check=True).stdout.split("\0")
    there = [name for name in tracked if name and (ROOT / name).is_file()]
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in there}
    assert "omni_lite/vocab.py" in lengths
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring and "TODO" not in docstring, f"{path.name} does not say what it is"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            overload = any("overload" in ast.unparse(one) for one in node.decorator_list)
            assert overload or ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
