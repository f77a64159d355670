"""Does an answer keep real time while other programs run?  python -m benchmarks.busy

Times the lite model with spinning threads, with sleeping threads and with one thread, while zero, one or two other
programs keep a core busy. Each measurement runs in a new process. Writes `results/busy-<machine>.json` and the table in
docs/performance.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.decode import device_name

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
MARKS = "<!-- busy -->", "<!-- /busy -->"
WAYS = {                                     # OpenMP settings
    "2 threads that spin": dict(OMP_WAIT_POLICY="ACTIVE", OMP_NUM_THREADS="2"),
    "2 threads that sleep": dict(OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS="2"),
    "1 thread (default of lite)": dict(OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS="1"),
}
LONGEST_S = 600                              # time limit of a busy program
ASK = """
import json
from omni_lite.recording import load_question
from omni_lite.fast import quick
from omni_lite.folder import data_folder
from omni_lite.load import load_assistant
assistant = quick(load_assistant())
question = load_question(data_folder() / "audio" / "question.wav")
assistant.warm_up()
print(json.dumps([(reply.first_audio_ms, reply.rtf) for reply in (assistant.answer(question) for _ in range(5))]))
"""


@contextmanager
def one_core_busy(programs: int = 1) -> Iterator[None]:
    """Keep `programs` cores busy while the context lasts."""
    spin = f"import time; end = time.time() + {LONGEST_S}\nwhile time.time() < end: pass"
    others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(programs)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def ask(way: dict[str, str]) -> list[tuple[float, float]]:
    """Five answers to the bundled question in a new process: (ms to first audio, real-time factor) of each."""
    run = subprocess.run([sys.executable, "-c", ASK], env=os.environ | way, capture_output=True, text=True, check=True)
    return [(first, rtf) for first, rtf in json.loads(run.stdout.splitlines()[-1])]


def measure(turns: int) -> dict[str, dict[str, list[float]]]:
    """Setting -> number of busy programs -> medians of ms to first audio and real-time factor, over all turns."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {way: {} for way in WAYS}
    for _ in range(turns):
        for programs in (0, 1, 2):
            for way, settings in WAYS.items():
                with one_core_busy(programs):
                    found[way].setdefault(str(programs), []).extend(ask(settings))
    return {way: {programs: [round(median(first for first, _ in times), 1), round(median(rtf for _, rtf in times), 3)]
                  for programs, times in rows.items()} for way, rows in found.items()}


def described(result: dict) -> str:
    """One machine's figures as Markdown."""
    head = [f"| {result['device']}; lite, fp32 | alone | one core busy | two cores busy |", "|---|---|---|---|"]
    return "\n".join(head + [f"| {way} | " + " | ".join(f"{first:.0f} ms, {rtf:.2f}" for first, rtf in rows.values())
                             + " |" for way, rows in result["ways"].items()])


def main() -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    from omni_lite.recipes.lite.evaluate import put_between, write_text

    result = dict(device=device_name("cpu"), question="data/audio/question.wav", ways=measure(args.turns))
    print(described(result))
    slug = re.sub(r"[^a-z0-9]+", "-", str(result["device"]).lower()).strip("-")
    write_text(RESULTS / f"busy-{slug}.json", json.dumps(result, indent=1) + "\n")
    kept = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("busy-*.json"))]
    put_between(ROOT / "docs" / "performance.md", "\n\n".join(map(described, kept)), MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
