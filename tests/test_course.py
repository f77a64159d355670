"""notebooks/course.py: what it keeps of a notebook that ran, and pages that load nothing."""

import base64
import importlib.util
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nbconvert")
FILE = Path(__file__).parent.parent / "notebooks" / "course.py"
spec = importlib.util.spec_from_file_location("course", FILE)
course = importlib.util.module_from_spec(spec)
spec.loader.exec_module(course)

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FIRST = """# 01 · First

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/x)

At the end you can

- count,
- and `read`.

**Needs** nothing. See [the next](02_second.ipynb), [a file](../README.md) and [a site](https://example.org)."""


def book(first: str) -> nbformat.NotebookNode:
    new = nbformat.v4
    cell = new.new_code_cell("print(1)", execution_count=1, metadata={"execution": {"iopub": "now"}, "tags": ["kept"]})
    cell.outputs = [
        new.new_output("stream", name="stdout", text="1\n"),
        new.new_output("stream", name="stderr", text="a warning\n\n"),
        new.new_output("display_data", data={course.WIDGET: {"model_id": "x"}, "text/plain": "interactive(children)"}),
        new.new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"}),
    ]
    return new.new_notebook(cells=[new.new_markdown_cell(first), cell], metadata={"widgets": {}, "other": 1})


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "notebooks"
    (place / "solutions").mkdir(parents=True)
    nbformat.write(book(FIRST), place / "01_first.ipynb")
    nbformat.write(book("# 02 · Second\n\nIt begins. And goes on."), place / "02_second.ipynb")
    nbformat.write(book("# Solutions to 01"), place / "solutions" / "01_first.ipynb")
    return place


def test_what_is_kept_of_a_notebook():
    one = book(FIRST)
    assert course.clean(one) == ["a warning"]
    assert set(one.metadata) == {"kernelspec", "language_info"}
    assert [output.get("name") for output in one.cells[1].outputs] == ["stdout", None, None]
    assert one.cells[1].metadata == {"tags": ["kept"]} and one.cells[1].execution_count == 1


def test_a_picture_keeps_its_size_and_looks_in_fewer_bytes():
    side = 200
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 1), dtype=np.uint8).repeat(3, 2)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    after = base64.b64decode(course.fewer_colors(base64.b64encode(buffer.getvalue()).decode()))
    assert len(after) < len(buffer.getvalue())
    same = np.asarray(Image.open(io.BytesIO(after)).convert("RGB"), dtype=float)
    assert same.shape == picture.shape and abs(same - picture).mean() < 4
    assert len(course.fewer_colors(PIXEL)) <= len(PIXEL)


def test_order_and_names(folder):
    names = [str(path.relative_to(folder)) for path in course.notebooks(folder)]
    assert names == ["01_first.ipynb", "02_second.ipynb", "solutions/01_first.ipynb"]
    assert [path.name for path in course.notebooks(folder, ["02"])] == ["02_second.ipynb"]
    with pytest.raises(FileNotFoundError, match="no notebook called 09"):
        course.notebooks(folder, ["09"])


def test_the_opening():
    title, first = course.opening(book(FIRST))
    assert title == "01 · First" and first == "At the end you can\n\n- count,\n- and `read`."
    assert course.opening(book("# Two\n\nIt begins.\n\n- no"))[1] == "It begins."
    assert course.opening(book("# Alone"))[1] == ""


def test_pages_stand_alone_in_order(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "HERE", folder)
    monkeypatch.setattr(course, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("hello")
    index = course.site(course.notebooks(folder), tmp_path / "site", folder)
    text = index.read_text()
    assert re.findall(r'<a href="([^"]*)">', text) == ["01_first.html", "02_second.html", "solutions/01_first.html"]
    assert "<code>read</code>" in text and "It begins. And goes on." in text
    page = (index.parent / "01_first.html").read_text()
    assert "<script" not in page and "Open in Colab" in page and "colab-badge.svg" not in page
    assert 'href="02_second.html"' in page and f'href="{course.SOURCE}/README.md"' in page
    assert 'href="https://example.org"' in page and f"data:image/png;base64,{PIXEL[:20]}" in page
    assert "A control stands here" in page and "interactive(children)" not in page
    assert 'href="../index.html"' in (index.parent / "solutions" / "01_first.html").read_text()


def test_pages_that_would_load_something_are_refused():
    for text in ('<img src="https://x.org/a.png"/>', '<link href="//x.org/a.css"/>', "<script>1</script>",
                 '<style>@import "https://x.org/a.css";</style>'):
        with pytest.raises(ValueError, match="page.html would load"):
            course.check_alone(text, Path("page.html"))
    course.check_alone('<a href="https://x.org">x</a><img src="data:image/png;base64,xx"/>', Path("page.html"))


def test_formulas_between_dollars_are_refused(folder, tmp_path):
    nbformat.write(book("# M\n\nSo $x^2$ it is."), folder / "02_second.ipynb")
    with pytest.raises(ValueError, match="02_second.ipynb has a formula"):
        course.site(course.notebooks(folder), tmp_path / "site", folder)
    assert not course.MATH.search("costs $5 or 6 $ here")


def test_another_folder_is_not_removed(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="other things"):
        course.site(course.notebooks(folder), tmp_path / "mine", folder)
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_the_time_is_written_into_the_first_cell_again_and_again(folder):
    one = book(FIRST.replace("**Needs** nothing", "**Takes** TIME; 20 minutes to read. **Needs** nothing"))
    for seconds, words in ((20, "less than a minute"), (61, "about a minute"), (170, "about 3 minutes")):
        course.note_time(one, seconds)
        assert f"**Takes** {words} (measured on " in one.cells[0].source
        assert one.cells[0].source.count("measured") == 1 and "; 20 minutes to read." in one.cells[0].source
        (where,) = re.findall(r"\(measured on .*?\)", one.cells[0].source)
        assert "(" not in where[1:] and where.count("cores") == 1 and where + "; 20 minutes" in one.cells[0].source
    nbformat.write(one, folder / "01_first.ipynb")
    readme = folder / "README.md"
    readme.write_text("Before <!-- course --> old <!-- /course --> after")
    course.quote(readme, folder)
    assert readme.read_text().startswith("Before <!-- course -->\n| notebook |")
    assert "| [01 · First](notebooks/01_first.ipynb) | about 3 minutes |" in readme.read_text()
    assert readme.read_text().endswith("<!-- /course --> after")


def test_the_tagged_picture_is_kept_as_a_file(tmp_path):
    one = book(FIRST)
    course.save_map(one, tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()
    one.cells[1].metadata["tags"] = ["map"]
    course.save_map(one, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == base64.b64decode(PIXEL)
