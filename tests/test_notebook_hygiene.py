"""Committed notebooks: run in order, without errors, small, and free of what breaks on GitHub or under nbval."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
LARGEST = 1_000_000                          # bytes
LONGEST = 25                                 # lines of a code cell


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_hygiene(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert len(text.encode()) <= LARGEST
    assert "widgets" not in notebook["metadata"]
    prose = re.sub(r"[A-Za-z0-9+/=]{200,}", "", text)    # less the pictures and sounds
    assert not re.search(r"/(home|root|work|tmp|Users|mnt)/\w", prose), "an absolute path"
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        source = "".join(cell["source"])
        assert source.count("\n") < LONGEST, source
        assert "tqdm.auto" not in source
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("name") != "stderr", output
            assert output.get("execution_count", cell["execution_count"]) == cell["execution_count"]
            assert "image/svg+xml" not in output.get("data", {})
