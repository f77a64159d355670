"""The course as a whole: run all notebooks and write them in place, or make one static page of each.

    python notebooks/course.py run [NAME ...]         fresh kernels, one after the other; NAME: a part of a file's name
    python notebooks/course.py site [--out FOLDER]    FOLDER/index.html (build/site), one page a notebook, no network

`run` writes a notebook only if every cell of it ran; the first one that fails ends it with status 1. What was
printed on stderr is shown here and not kept. The time that it took is written into its first cell and into the table
of the README. `site` takes the notebooks as they are, and runs nothing.
"""

import argparse
import base64
import html
import io
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from time import perf_counter

import nbformat
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SITE = ROOT / "build" / "site"
SOURCE = "https://github.com/omni-lite/omni_lite/blob/main"   # where links to files that are no page lead
CELL_SECONDS = 600
MAP = "map.png"                               # the picture of the README: of the cell with the tag "map"
TABLE = ("<!-- course -->", "<!-- /course -->")               # around the table of the README
TAKES = re.compile(r"\*\*Takes\*\* (TIME|[^()]*\(measured on [^)]*\))")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_KERNEL = "<p><em>A control stands here when the notebook is run.</em></p>"
MATH = re.compile(r"\$\$|(?<![\\$\w])\$(?!\s)[^$\n]+(?<!\s)\$(?![$\w])")
STYLE = """
body.jp-Notebook, body.index { max-width: 62rem; margin: 0 auto; padding: 1rem; }
nav.course a { color: #0645ad; text-decoration: none; }
nav.course { font: 1rem sans-serif; display: flex; gap: 2rem; padding: 0.5rem 0; border-bottom: 1px solid #ccc; }
body.index { font: 1.1rem/1.5 sans-serif; } body.index ul { list-style: none; padding: 0; }
body.index li { margin-bottom: 1.2rem; } body.index li ul { list-style: disc; padding-left: 1.5rem; }
body.index li li, body.index .solutions li { margin: 0; }
.jp-RenderedImage img { max-width: 100%; height: auto; }
:root { --jp-code-font-size: 12px; }
"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>omni_lite: the course</title><style>{style}</style></head>
<body class="index"><h1>omni_lite: the course</h1>
<p>How a language model learns to hear, and to talk while it thinks.</p>
<ul>
{lessons}
</ul>
<h2>Solutions</h2>
<p>Of every lesson's exercises; try them yourself first, the checks say what is missing.</p>
<ul class="solutions">
{solutions}
</ul></body></html>
"""


def notebooks(folder: Path = HERE, names: list[str] | None = None) -> list[Path]:
    """The course's notebooks in order, then their solutions; only those whose name has one of `names` in it."""
    found = sorted(folder.glob("[0-9]*.ipynb")) + sorted(folder.glob("solutions/[0-9]*.ipynb"))
    found = [path for path in found if not names or any(name in str(path.relative_to(folder)) for name in names)]
    if not found:
        raise FileNotFoundError(f"{folder} has no notebook called {' or '.join(names or ['anything'])}.")
    return found


# --- run ------------------------------------------------------------------------------------------------


def run(paths: list[Path]) -> None:
    """Execute and write in place, one after the other."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    began = perf_counter()
    for path in paths:
        start, notebook = perf_counter(), nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False,
                                coalesce_streams=True, resources={"metadata": {"path": str(path.parent)}})
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise RuntimeError(f"{path.name} was left as it was, since one of its cells failed:\n{error}") from error
        note_time(notebook, perf_counter() - start)
        for line in clean(notebook):
            print(f"{path.name} printed on stderr: {line}", file=sys.stderr)
        text = nbformat.writes(notebook).rstrip("\n") + "\n"
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        save_map(notebook, path.with_name(MAP))
        print(f"{path.name}: {perf_counter() - start:.0f} s, {len(text.encode()) / 1000:.0f} KB", flush=True)
    print(f"{len(paths)} notebooks in {(perf_counter() - began) / 60:.1f} minutes")


def note_time(notebook: NotebookNode, seconds: float) -> None:
    """Write into the first cell how long all cells took, and on what, where it says "**Takes** TIME" or an older time.
    """
    minutes = max(1, round(seconds / 60))
    long = "less than a minute" if seconds < 45 else "about a minute" if minutes == 1 else f"about {minutes} minutes"
    known = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", known.read_text()) if known.exists() else None
    processor = found[1] if found else platform.processor() or platform.machine()
    processor = re.sub(r"\(\w+\)", "", processor).strip()   # the marks of "Intel(R) Xeon(R)" are no part of the name
    machine = f"{os.cpu_count()} cores, {processor}" + ("" if has_gpu() else ", without a GPU")
    first = notebook.cells[0]
    first.source = TAKES.sub(f"**Takes** {long} (measured on {machine})", first.source, 1)


def save_map(notebook: NotebookNode, path: Path) -> None:
    """Keep the picture of the cell that is tagged "map", if there is one, as a file."""
    for cell in notebook.cells:
        if "map" in cell.metadata.get("tags", []):
            (picture,) = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
            path.write_bytes(base64.b64decode(picture))


def has_gpu() -> bool:
    """Whether the notebooks could use one."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def contents(folder: Path = HERE) -> str:
    """The lessons as a table of Markdown, each with the time that its first cell states."""
    rows = ["| notebook | to run all of it |", "|---|---|"]
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        book = nbformat.read(path, as_version=4)
        time = TAKES.search(book.cells[0].source)
        rows.append(f"| [{opening(book)[0]}](notebooks/{path.name}) | {time[1].partition(' (')[0] if time else ''} |")
    return "\n".join(rows)


def quote(readme: Path, folder: Path = HERE) -> None:
    """Put the table of contents between its marks in the README."""
    start, end = TABLE
    before, _, rest = readme.read_text(encoding="utf-8").partition(start)
    _, mark, after = rest.partition(end)
    if not mark:
        raise ValueError(f"{readme} lacks the marks {start} and {end}: put them where the table belongs.")
    readme.write_text(f"{before}{start}\n{contents(folder)}\n{end}{after}", encoding="utf-8")


def fewer_colors(png: str) -> str:
    """A picture in base64 with at most 256 colours, where that is smaller."""
    before = base64.b64decode(png)
    after = io.BytesIO()
    picture = Image.open(io.BytesIO(before)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(after, "PNG", optimize=True)
    return base64.b64encode(min(before, after.getvalue(), key=len)).decode()


def clean(notebook: NotebookNode) -> list[str]:
    """Drop what breaks on GitHub or differs from run to run, and colours that nobody sees; returns the lines
    that were printed on stderr."""
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"))
    dropped = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            dropped += [line for output in cell.outputs if output.get("name") == "stderr"
                        for line in output.text.splitlines() if line.strip()]
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = fewer_colors(output.data["image/png"])
    return dropped


# --- site -----------------------------------------------------------------------------------------------


def site(paths: list[Path], out: Path = SITE, folder: Path = HERE) -> Path:
    """One page a notebook, and an index in order: lessons with their first paragraphs, then solutions; returns it."""
    if out.exists():
        if any(out.iterdir()) and not (out / "index.html").is_file():
            raise FileExistsError(f"{out} holds other things than a site: give an empty or a new folder.")
        shutil.rmtree(out)
    pages = [path.relative_to(folder).with_suffix(".html") for path in paths]
    books = [nbformat.read(path, as_version=4) for path in paths]
    for i, (path, page, book) in enumerate(zip(paths, pages, books, strict=True)):
        around = [pages[j] if 0 <= j < len(pages) else None for j in (i - 1, i + 1)]
        target = out / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(convert(book, path, page, around, out, set(pages)), encoding="utf-8")
        print(f"{page}: {target.stat().st_size / 1e6:.1f} MB", flush=True)
    lessons, solutions = [], []
    for page, book in zip(pages, books, strict=True):
        title, first = opening(book)
        link = f'<a href="{page.as_posix()}">{html.escape(title)}</a>'
        if page.parent.name == "solutions":
            solutions.append(f"<li>{link}</li>")
        else:
            lessons.append(f"<li>{link}{plain(markdown2html(first))}</li>")
    index = INDEX.format(style=STYLE, lessons="\n".join(lessons), solutions="\n".join(solutions))
    (out / "index.html").write_text(index, encoding="utf-8")
    return out / "index.html"


def opening(book: NotebookNode) -> tuple[str, str]:
    """The title, and the first paragraph under it, with the list that it begins if it does not end itself."""
    text = next((cell.source for cell in book.cells if cell.cell_type == "markdown"), "")
    title = re.search(r"^#\s+(.*)", text, re.M)
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text)]
    prose = [i for i, block in enumerate(blocks) if block and not re.match(r"#|\[!\[|[-*|<]\s?\w*", block)]
    if not prose:
        return (title[1] if title else "untitled"), ""
    first = blocks[prose[0]]
    if not re.search(r"[.!?]\W*$", first) and prose[0] + 1 < len(blocks):
        first += "\n\n" + blocks[prose[0] + 1]
    return (title[1] if title else "untitled"), first


def convert(book: NotebookNode, path: Path, page: Path, around: list[Path | None], out: Path, pages: set[Path]) -> str:
    """A notebook as one HTML page that asks nobody for anything."""
    book = nbformat.from_dict(book)
    book.metadata.pop("widgets", None)
    book.metadata["title"] = opening(book)[0]
    for cell in book.cells:
        if cell.cell_type == "markdown" and MATH.search(re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.S)):
            raise ValueError(f"{path.name} has a formula between dollars, which would need MathJax: write it in words.")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None) is not None and not data.keys() - {"text/plain"}:
                data["text/html"] = NO_KERNEL
    text, _ = HTMLExporter(template_name="lab", exclude_anchor_links=True).from_notebook_node(book)
    soup = BeautifulSoup(text, "html.parser")
    for script in soup.find_all("script"):   # MathJax, require.js, mermaid: from elsewhere, and not needed
        script.decompose()
    for image in soup.find_all("img", src=re.compile(r"^(https?:)?//")):
        image.replace_with(image.get("alt") or "")
    up = "../" * (len(page.parts) - 1)
    for link in soup.find_all("a", href=True):
        link["href"] = lead(link["href"], path, up, out, pages)
    bar = f'<a href="{up}index.html">The course</a>'
    for there, word in zip(around, ("Before", "Next"), strict=True):
        bar += "" if there is None else f'<a href="{up}{there.as_posix()}">{word}</a>'
    for place in (0, len(soup.body.contents) + 1):
        soup.body.insert(place, BeautifulSoup(f'<nav class="course">{bar}</nav>', "html.parser").nav)
    style = soup.new_tag("style")
    style.string = STYLE
    soup.head.append(style)
    for image in soup.find_all("img", alt=re.compile("^No description")):
        image["alt"] = "a picture drawn by the cell above"
    result = str(soup)
    check_alone(result, page)
    return result


def lead(href: str, path: Path, up: str, out: Path, pages: set[Path]) -> str:
    """Where a link of a notebook leads on the site: another page, a file beside it, or the repository."""
    target, mark, anchor = href.partition("#")
    if not target or re.match(r"[a-z]+:|//", target):
        return href
    file = (path.parent / target).resolve()
    if file.suffix == ".ipynb" and file.is_relative_to(HERE):
        there = file.relative_to(HERE).with_suffix(".html")
        if there in pages:
            return f"{up}{there.as_posix()}{mark}{anchor}"
    if not file.is_relative_to(ROOT):
        return href
    inside = file.relative_to(ROOT)
    if file.is_file() and file.suffix in (".wav", ".png"):
        (out / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / inside)
        return f"{up}{inside.as_posix()}"
    return f"{SOURCE}/{inside.as_posix()}{mark}{anchor}"


def plain(text: str) -> str:
    """HTML without the marks that nbconvert puts beside headings, and without pictures."""
    return re.sub(r"<img[^>]*>|<a class=\"anchor-link\".*?</a>", "", text)


def check_alone(text: str, page: Path) -> None:
    """Raise unless a page loads nothing: links may lead elsewhere, nothing else may."""
    soup = BeautifulSoup(text, "html.parser")
    outside = re.compile(r"^\s*(https?:)?//")
    found = [str(tag)[:120] for tag in soup.find_all(True) if tag.name != "a"
             for name in ("src", "href", "data", "poster") if outside.match(str(tag.get(name, "")))]
    for style in soup.find_all("style"):
        found += re.findall(r"(?:@import|url\()\s*['\"]?https?:[^)'\"]*", style.text)
    if found or soup.find("script"):
        raise ValueError(f"{page} would load something from elsewhere: {found or 'a script'}")


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0, or 1 after what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    again = commands.add_parser("run", help="execute all notebooks and write them in place")
    again.add_argument("names", nargs="*", metavar="NAME")
    pages = commands.add_parser("site", help="one static page a notebook, with an index")
    pages.add_argument("--out", type=Path, default=SITE)
    args = parser.parse_args(argv)
    try:
        if args.command == "run":
            run(notebooks(names=args.names))
            quote(ROOT / "README.md")
        else:
            print(f"open {site(notebooks(), args.out)}")
        return 0
    except (OSError, ValueError, RuntimeError) as error:
        print(f"course: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
