"""Progress of all recipes: each finished stage has a manifest.

`STAGE.json` is written last and atomically. It holds the fingerprint of the stage's inputs (plan, seed, code version,
data, outputs of the needed stages) and the sha256 of its outputs. If the data or a plan changes, the stage and all
that need it become stale. The folder of unfinished work has the fingerprint in its name, so an interrupted stage
resumes only from work with the same inputs.
"""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omni_lite import __version__
from omni_lite.audio import atomic_write
from omni_lite.checkpoints import sha256_of

SEED = 0
CHECKED_BYTES = 64 * 2**20                   # read for a file's digest, at most
ORIGINS = dict(plan="its plan", seed="its seed", code="the code version", needed="an earlier stage", data="its data")
PACKAGES = ("torch", "transformers", "tokenizers", "openai-whisper", "snac", "numpy")


@dataclass(frozen=True)
class Place:
    """The folders of a stage.

    data: the data set;  run: files for later stages;  out: the weights;  work: the stage's own unfinished work
    """

    data: Path
    run: Path
    out: Path
    work: Path
    say: Callable[[str], None] = print
    device: str = "cpu"


@dataclass(frozen=True)
class Stage:
    """One step of a recipe.

    make:  does the work and returns the files it wrote
    plan:  plain data or dataclasses, part of the fingerprint
    needs: names of the stages whose outputs it reads
    reads: patterns of the data set's files that it reads
    """

    name: str
    make: Callable[[Place], Sequence[Path]]
    plan: Any = None
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


@dataclass
class Recipe:
    """Stages in order, and their manifests; data, run, out: see `Place`."""

    name: str
    stages: Sequence[Stage]
    data: Path
    run: Path
    out: Path
    device: str = "cpu"

    def work_off(self, only: str | None = None) -> None:
        """Run every stage that is not done or is stale, in order; only: the name of one stage.

        raises: ValueError if there is no such stage, FileNotFoundError if a stage that it needs is not done
        """
        names = [stage.name for stage in self.stages]
        if only is not None and only not in names:
            raise ValueError(f"There is no stage {only!r}: choose one of {', '.join(names)}.")
        self.run.mkdir(parents=True, exist_ok=True)
        for stage in self.stages:
            if only not in (None, stage.name):
                continue
            why = self.unfinished(stage)
            if why:
                self.say(f"{stage.name}: {why}")
                self._make(stage)

    def unfinished(self, stage: Stage) -> str:
        """Why the stage must run; "" if it is done."""
        manifest = self.manifest(stage.name)
        if manifest is None:
            return "not done yet"
        if manifest["fingerprint"] != fingerprint(self.origin(stage)):
            then, now = manifest["origin"], self.origin(stage)
            changed = [ORIGINS[name] for name in now if then.get(name) != now[name]]
            return f"stale: {', '.join(changed)} changed"
        for name, expected in manifest["outputs"].items():
            path = self.run / name
            if not path.is_file() or describe(path) != expected:
                return f"stale: {path.name} is missing or was altered"
        return ""

    def manifest(self, name: str) -> dict[str, Any] | None:
        """A stage's manifest; None if the stage is not done."""
        path = self.run / "stages" / f"{name}.json"
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON ({error}): delete it, {name} will run again.") from error

    def origin(self, stage: Stage) -> dict[str, Any]:
        """All inputs of a stage, as plain data."""
        needed = {}
        for name in stage.needs:
            manifest = self.manifest(name)
            if manifest is None:
                raise FileNotFoundError(f"{stage.name} needs {name}, which is not done: run {name} first, or leave "
                                        "--only out.")
            needed[name] = {path: one["sha256"] for path, one in manifest["outputs"].items()}
        files = sorted({path for pattern in stage.reads for path in self.data.glob(pattern)})
        if stage.reads and not files:
            raise FileNotFoundError(f"{self.data} has no {stage.reads[0]}: build the data set with `make data`.")
        return dict(plan=plain(stage.plan), seed=SEED, code=__version__, needed=needed,
                    data={path.name: digest_of(path) for path in files})

    def minutes(self) -> dict[str, float]:
        """The minutes of each finished stage, with interrupted runs."""
        found = {stage.name: self.manifest(stage.name) for stage in self.stages}
        return {name: one["minutes"] for name, one in found.items() if one is not None}

    def say(self, line: str) -> None:
        """Print a line and add it to the log."""
        print(line, flush=True)
        with open(self.run / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S')}  {line}\n")

    def _make(self, stage: Stage) -> None:
        """Do the work, write the manifest, then delete the unfinished work."""
        origin = self.origin(stage)
        mark = fingerprint(origin)
        work = self.run / "work" / f"{stage.name}-{mark[:12]}"
        work.mkdir(parents=True, exist_ok=True)
        began = time.time()
        paths = stage.make(Place(self.data, self.run, self.out, work, self.say, self.device))
        minutes = max(time.time() - began, seconds_in(work)) / 60
        outputs = {str(path.relative_to(self.run)): describe(path) for path in paths}
        manifest = dict(stage=stage.name, fingerprint=mark, origin=origin, outputs=outputs, minutes=round(minutes, 2),
                        date=date.today().isoformat(), machine=machine())
        target = self.run / "stages" / f"{stage.name}.json"
        with atomic_write(target) as temporary:
            temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(work)
        self.say(f"{stage.name}: done after {minutes:.1f} min")


def seconds_in(work: Path) -> float:
    """Training seconds of an unfinished stage, with interrupted runs."""
    return sum(torch.load(state, weights_only=True, map_location="cpu")["seconds"] for state in work.glob("*.pt"))


def fingerprint(origin: Any) -> str:
    """sha256 of plain data."""
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """An output's size and `digest_of`."""
    return dict(bytes=path.stat().st_size, sha256=digest_of(path))


def digest_of(path: Path) -> str:
    """sha256 of a file, cached until it changes; above `CHECKED_BYTES` of its size, beginning and end."""
    found = path.stat()
    return _digest(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, _: int) -> str:
    if size <= CHECKED_BYTES:
        return sha256_of(path)
    found = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        found.update(file.read(CHECKED_BYTES // 2))
        file.seek(-CHECKED_BYTES // 2, 2)
        found.update(file.read())
    return found.hexdigest()


def plain(plan: Any) -> Any:
    """A plan as JSON data; dataclasses get their class name, so classes with equal fields differ."""
    if is_dataclass(plan) and not isinstance(plan, type):
        return dict(kind=type(plan).__name__) | {name: plain(value) for name, value in vars(plan).items()}
    if isinstance(plan, dict) or hasattr(plan, "items"):
        return {str(key): plain(value) for key, value in plan.items()}
    if isinstance(plan, (list, tuple)):
        return [plain(one) for one in plan]
    if isinstance(plan, (Tensor, nn.Module)):
        raise TypeError(f"A plan holds a {type(plan).__name__}: it must be plain data.")
    return plan


def machine() -> dict[str, Any]:
    """The hardware and package versions, for the card."""
    return dict(hardware=f"{platform.machine()}, {torch.get_num_threads()} threads", python=platform.python_version(),
                packages={name: version(name) for name in PACKAGES})
