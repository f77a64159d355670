"""How well do the ears hear recorded people?  python -m benchmarks.people FOLDER

FOLDER holds `people.tsv`, a line for each recording: file, what is said, and what kind of recording it is up to the
first comma. The recordings are not part of this repository. Whisper's whole window is the reference; the lite preset
and the adapter have only heard synthetic voices in training.

Writes `results/people.json`, the word error rate of each kind and of all, and README's table.
"""

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from omni_lite.audio import to_mono_rate
from omni_lite.chat.ears import WordEars
from omni_lite.evaluate import transcribe, wer
from omni_lite.fast import quick
from omni_lite.interop.whisper import load_whisper
from omni_lite.load import load_assistant
from omni_lite.recipes.lite.evaluate import README, put_between
from omni_lite.recipes.smollm2.listen import Listener
from omni_lite.vocab import EAR_RATE, MAX_QUESTION_SECONDS

RESULTS = Path(__file__).parent / "results" / "people.json"
MARKS = ("<!-- people -->", "<!-- /people -->")


def read_people(folder: Path) -> list[tuple[str, str, Tensor]]:
    """(kind, what is said, (N,) float32 at 16 kHz) of every recording with words."""
    with open(folder / "people.tsv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if len(row) >= 3 and row[1].strip()]
    out = []
    for name, said, about, *_ in rows:
        if (folder / name).is_file():
            samples, rate = soundfile.read(folder / name, dtype="float32")
            wave = to_mono_rate(samples, rate, EAR_RATE)[: MAX_QUESTION_SECONDS * EAR_RATE]
            out.append((about.split(",")[0].strip(), said, wave))
    return out


def ears() -> dict[str, Callable[[Tensor], str]]:
    """Name -> wave to words."""
    whisper = load_whisper("tiny.en", full=True)
    words, lite = WordEars(whisper), quick(load_assistant("lite"))
    found: dict[str, Callable[[Tensor], str]] = {
        "Whisper tiny.en, whole window": lambda wave: transcribe(whisper, [wave], EAR_RATE)[0],
        "Whisper tiny.en, as a chat model's ears": lambda wave: words.transcribe(wave).text,
        "the lite preset": lambda wave: lite.answer(wave, "A1T1").text,
    }
    try:
        found["SmolLM2's adapter"] = Listener.load().hear
    except FileNotFoundError as error:
        print(f"without the adapter: {error}")
    return found


def as_table(result: dict[str, Any]) -> str:
    """README's table."""
    kinds = [*result["clips"], "all"]
    rows = [f"| {name} | {' | '.join(str(table[kind]) for kind in kinds)} |" for name, table in result["wer"].items()]
    return "\n".join([f"| ears | {' | '.join(kinds)} |", "|---" * (1 + len(kinds)) + "|", *rows])


def main() -> None:
    """Measure every pair of ears, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    people = read_people(args.folder)
    kinds = {kind: [i for i, one in enumerate(people) if one[0] == kind] for kind, _, _ in people}
    table: dict[str, dict[str, float]] = {}
    for name, hear in ears().items():
        with torch.inference_mode():
            heard = [hear(wave) for _, _, wave in people]
        groups = kinds | {"all": list(range(len(people)))}
        table[name] = {kind: round(wer([people[i][1] for i in some], [heard[i] for i in some]), 1)
                       for kind, some in groups.items()}
        print(f"{name:42s}", "   ".join(f"{kind} {one}" for kind, one in table[name].items()), flush=True)
    result = dict(clips={kind: len(some) for kind, some in kinds.items()}, wer=table)
    if args.out == RESULTS:
        put_between(README, as_table(result), MARKS)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
