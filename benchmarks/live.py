"""How soon does the live demo answer, and does it play every sample?  python -m benchmarks.live

Opens the demo in JupyterLab, Notebook 7 and Voila, in a headless Chromium whose microphone plays a recorded question.
It holds the button as a user does and records every sample that leaves the page (`tap.js`). In some turns another
program keeps one core busy. Writes `results/live-<machine>.json` and the tables in docs/performance.md. Run it on an
idle machine: browser, server and model share its cores.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch

from benchmarks.browser import (
    APPS,
    REPORTER,
    ROOT,
    LivePage,
    Server,
    browser,
    chromium,
    microphone_wav,
    why_no_browser,
    write_notebook,
)
from benchmarks.busy import one_core_busy
from omni_lite.assistant import Assistant
from omni_lite.load import load_assistant
from omni_lite.recipes.lite.evaluate import put_between
from omni_lite.recording import load_question
from omni_lite.streams import Task

QUESTION = ROOT / "data" / "audio" / "question.wav"
RESULTS = Path(__file__).parent / "results"
GOALS = {                                    # what each figure must reach, and whether more or less is better
    "first_sound_median_ms": 450,
    "busy_first_sound_median_ms": 900,
    "underruns": 0,
    "busy_underruns": 0,
    "changed_samples": 0,
    "missing_samples": 0,
    "barge_in_worst_ms": 100,
    "kernel_growth_percent": 5,
    "page_growth_percent": 5,
    "other_texts": 0,                        # answers; the transcripts are counted beside them, without a goal
}
NAMES = {"lab": "JupyterLab", "notebook": "Notebook 7", "voila": "Voila"}
WORDS = {                                    # the names of the goals in docs/performance.md
    "first_sound_median_ms": "button released to the first sample sounding, median, ms",
    "busy_first_sound_median_ms": "the same with one core busy",
    "underruns": "underruns",
    "busy_underruns": "underruns with one core busy",
    "changed_samples": "samples that sounded otherwise than generated",
    "missing_samples": "samples generated and not played",
    "barge_in_worst_ms": "talked over, to silence, worst, ms",
    "kernel_growth_percent": "growth of the kernel over the memory turns, %",
    "page_growth_percent": "growth of the page over the memory turns, %",
    "other_texts": "answers that differ from the file's",
}
MARKS = "<!-- live -->", "<!-- /live -->"
PHASE_SAMPLES = 320                          # 20 ms: one feature; the adapter stacks 4 of them
SPEAK_S = 0.8                                # hold the button so much longer than the question
SLOW = """
import time
hear = demo.assistant.hear
demo.assistant.hear = lambda wave: time.sleep(1.5) or hear(wave)
"""


def answers_from_file(assistant: Assistant, path: Path) -> dict[str, set[str]]:
    """The model's transcripts and answers of a file, for different offsets in the adapter's grid of 80 ms.

    A microphone opens at any moment, so the offset is random, and the model may give several answers to one file.
    """
    wav_16k = load_question(path)
    said: dict[str, set[str]] = {"heard": set(), "text": set()}
    for shift in range(4):
        for tail in (0, 8_000):
            wave = torch.cat([torch.zeros(shift * PHASE_SAMPLES), wav_16k, torch.zeros(tail)])
            said["heard"].add(assistant.answer(wave, Task.A1T1).text)
            said["text"].add(assistant.answer(wave).text)
    return said


def differences(generated: np.ndarray, sounded: np.ndarray) -> tuple[int, int]:
    """Number of changed samples, and of missing or extra samples, without the silence at the ends."""
    one, two = (np.trim_zeros(np.where(np.abs(wave) < 1e-6, 0, wave)) for wave in (generated, sounded))
    both = min(len(one), len(two))
    return int((np.abs(one[:both] - two[:both]) > 1e-6).sum()), abs(len(one) - len(two))


def take_turn(page: LivePage, folder: Path, seconds: float) -> dict:
    """Ask once and wait for the end of the answer; returns the timing and the playback errors."""
    count = len(page.server.state()["turns"])
    page.speak(seconds)
    state = page.server.wait("the end of an answer", lambda state: len(state["turns"]) > count
                             and state["turns"][-1]["heard"] and "samples" in state["turns"][-1]["page"])
    page.wait_for("talker", "over")
    page.page.wait_for_timeout(200)                      # the tap's last blocks
    turn, heard = state["turns"][-1], page.sounded()
    page.page.locator(".omni-save").click()
    page.page.wait_for_function("document.querySelector('.omni-talker .omni-status').textContent.startsWith('Saved')")
    generated, _ = soundfile.read(folder / "turns" / f"turn-{count + 1:02d}-answer.wav", dtype="float32")
    changed, missing = differences(generated, heard["samples"])
    return dict(
        first_sound_ms=heard["first_ms"] - heard["released_ms"],
        changed_samples=changed,
        missing_samples=missing + abs(turn["samples"] - turn["page"]["samples"]) + heard["lost"],
        underruns=turn["page"]["underruns"],
        answer_s=turn["samples"] / 24_000,
        heard=turn["heard"],
        text=turn["text"],
        page={name: ms for name, ms in turn["page"].items() if name.endswith("_ms")},
        kernel=turn["stages_ms"],
    )


def barge_in(page: LivePage, seconds: float) -> float:
    """Interrupt an answer and wait for the next one; ms from the press to the last sample that left the page."""
    page.speak(seconds)
    page.wait_for("talker", "talking")
    page.page.wait_for_function("document.querySelector('.omni-answer span').textContent !== ''")
    page.sounded()
    page.press()
    page.page.wait_for_timeout(400)
    heard = page.sounded()
    assert page.state("talker") == "stopped"
    page.page.wait_for_timeout(1000 * seconds)
    page.page.mouse.up()
    page.wait_for("talker", "talking")
    page.page.locator(".omni-stop").click()
    page.wait_for("talker", "stopped")
    return heard["last_ms"] - heard["pressed_ms"]


def measure(app: str, question: Path, said: dict[str, set[str]], turns: int, rows: int, nice: int) -> dict:
    """All figures of one front end."""
    wave, rate = soundfile.read(question, dtype="float32")
    seconds = len(wave) / rate + SPEAK_S
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        microphone = microphone_wav(folder / "microphone.wav", wave, rate)
        write_notebook(folder / "live.ipynb", [REPORTER, "demo"])
        with Server(app, folder, nice) as server, browser(microphone, nice=nice) as window:
            page = LivePage(window, server, "live.ipynb")
            if app != "voila":
                page.run(0)
                page.run(1)
            page.ready()
            first = take_turn(page, folder, seconds)     # opens the microphone and the loudspeaker
            done = [take_turn(page, folder, seconds) for _ in range(turns)]
            with one_core_busy():
                busy = [take_turn(page, folder, seconds) for _ in range(max(1, turns // 2))]
            stops = [barge_in(page, seconds) for _ in range(max(1, turns // 2))]
            print(f"{app}: {turns} turns and {len(stops)} barge-ins; now {rows} turns for the memory", flush=True)
        with Server(app, folder, nice) as server, browser(microphone, nice=nice) as window:
            page = LivePage(window, server, "live.ipynb", tap=False)
            if app != "voila":
                page.run(0)
                page.run(1)
            page.ready()
            memory = []
            for turn in range(rows + 2):
                page.speak(seconds)
                state = server.wait("the end of an answer", lambda state, turn=turn: len(state["turns"]) > turn
                                    and state["turns"][-1]["heard"] and "samples" in state["turns"][-1]["page"])
                memory.append((state["rss_mb"], page.heap_mb()))
            errors = page.console
    kernel, heap = zip(*memory[1:], strict=True)         # the first turn still includes the set-up
    sounds = [turn["first_sound_ms"] for turn in done]
    figures = dict(
        first_sound_median_ms=median(sounds),
        first_sound_worst_ms=max(sounds),
        first_turn_first_sound_ms=first["first_sound_ms"],
        heard_median_ms=median(turn["page"]["heard_ms"] for turn in done),
        first_word_median_ms=median(turn["page"]["first_word_ms"] for turn in done),
        model_first_sound_median_ms=median(turn["kernel"]["first_sound"] for turn in done),
        busy_first_sound_median_ms=median(turn["first_sound_ms"] for turn in busy),
        underruns=sum(turn["underruns"] for turn in done),
        busy_underruns=sum(turn["underruns"] for turn in busy),
        changed_samples=sum(turn["changed_samples"] for turn in done),
        missing_samples=sum(turn["missing_samples"] for turn in done),
        barge_in_median_ms=median(stops),
        barge_in_worst_ms=max(stops),
        kernel_growth_percent=100 * (kernel[-1] / kernel[0] - 1),
        page_growth_percent=100 * (heap[-1] / heap[0] - 1),
        kernel_mb=kernel[-1],
        page_mb=heap[-1],
        other_texts=sum(turn["text"] not in said["text"] for turn in done),
        other_transcripts=sum(turn["heard"] not in said["heard"] for turn in done),
    )
    return {name: round(value, 1) for name, value in figures.items()} | dict(
        turns=turns, memory_turns=rows, answers=sorted({turn["text"] for turn in done}),
        heard=sorted({turn["heard"] for turn in done}), page_errors=errors)


def device() -> dict:
    """The machine, its load and the package versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.+)", info.read_text())
        name = found[1] if found else name
    packages = ("anywidget", "ipykernel", "jupyterlab", "notebook", "torch", "voila")
    return dict(
        name=name, cores=os.cpu_count(), threads=torch.get_num_threads(), load=round(os.getloadavg()[0], 1),
        python=platform.python_version(), date=datetime.date.today().isoformat(),
        versions={package: version(package) for package in packages},
    )


def pictures(folder: Path, apps: tuple[str, ...], nice: int) -> None:
    """Screenshots of the states idle, recording, thinking, talking, saved and refused; one PNG each."""
    folder.mkdir(parents=True, exist_ok=True)
    wave, rate = soundfile.read(QUESTION, dtype="float32")
    for app in apps:
        size = (1920, 1080) if app == "voila" else (1280, 900)
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            microphone = microphone_wav(work / "microphone.wav", wave, rate)
            write_notebook(work / "live.ipynb", [REPORTER + SLOW, "demo"])
            with Server(app, work, nice) as server:
                with browser(microphone, nice=nice) as window:
                    page = LivePage(window, server, "live.ipynb", size=size)
                    if app != "voila":
                        page.run(0)
                        page.run(1)
                    page.ready()

                    def shoot(name: str, page: LivePage = page, app: str = app) -> None:
                        page.page.screenshot(path=folder / f"{app}-{name}.png")

                    page.page.locator(".omni-talker").scroll_into_view_if_needed()
                    shoot("1-idle")
                    for _ in range(2):
                        page.press()
                        page.wait_for("recorder", "recording")
                        page.page.wait_for_timeout(1300)
                        shoot("2-recording")
                        page.page.wait_for_timeout(1000)
                        page.page.mouse.up()
                        page.wait_for("talker", "thinking")
                        page.page.wait_for_timeout(300)
                        shoot("3-thinking")
                        page.page.wait_for_function("document.querySelector('.omni-answer span').textContent !== ''")
                        shoot("4-talking")
                        page.wait_for("talker", "over")
                        page.page.wait_for_timeout(700)
                    page.page.locator(".omni-save").click()
                    page.page.keyboard.press("Shift+Tab")
                    page.page.wait_for_timeout(300)
                    shoot("5-saved")
                with browser(microphone, allow=False, nice=nice) as window:
                    page = LivePage(window, server, "live.ipynb", size=size)
                    if app != "voila":
                        page.run(0)
                        page.run(1)
                    page.ready().press()
                    page.wait_for("recorder", "refused")
                    page.page.mouse.up()
                    page.page.screenshot(path=folder / f"{app}-6-refused.png")


def described(result: dict) -> str:
    """One machine's figures as Markdown."""
    apps, machine = result["apps"], result["device"]
    first = next(iter(apps.values()))
    rows = [f"| {machine['name']}, {machine['cores']} cores; {first['turns']} turns, {first['memory_turns']} for the "
            f"memory | at most | {' | '.join(NAMES[app] for app in apps)} |", "|---|---|" + "---|" * len(apps)]
    rows += [f"| {words} | {result['goals'][name]} | {' | '.join(f'{one[name]:g}' for one in apps.values())} |"
             for name, words in WORDS.items() if name in result["goals"]]
    return "\n".join(rows)


def quote(page: Path = ROOT / "docs" / "performance.md", folder: Path = RESULTS) -> None:
    """Put the tables of all machines between the page's marks."""
    kept = [json.loads(path.read_text()) for path in sorted(folder.glob("live-*.json"))]
    put_between(page, "\n\n".join(map(described, kept)), MARKS)


def main() -> int:
    """Measure, print a table, write the file; returns 1 if a figure misses its goal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__.split("\n")[0])
    parser.add_argument("--apps", nargs="+", choices=APPS, default=APPS)
    parser.add_argument("--question", type=Path, default=QUESTION)
    parser.add_argument("--turns", type=int, default=10, help="for the medians")
    parser.add_argument("--memory-turns", type=int, default=20)
    parser.add_argument("--nice", type=int, default=0, help="of the server and the browser")
    parser.add_argument("--out", type=Path, help="the JSON file (default: results/live-<machine>.json)")
    parser.add_argument("--pictures", type=Path, help="instead, save screenshots of the page to this folder")
    args = parser.parse_args()
    if why := why_no_browser():
        print(f"benchmarks.live: {why}", file=sys.stderr)
        return 1
    if args.pictures:
        pictures(args.pictures, tuple(args.apps), args.nice)
        return 0
    result: dict = dict(device=device(), goals=GOALS, apps={})
    said = answers_from_file(load_assistant(), args.question)
    result["from_file"] = {name: sorted(texts) for name, texts in said.items()}
    for app in args.apps:
        result["apps"][app] = measure(app, args.question, said, args.turns, args.memory_turns, args.nice)
    result["device"]["chromium"] = Path(chromium() or "").name
    rows = [(name, goal, [result["apps"][app][name] for app in args.apps]) for name, goal in GOALS.items()]
    print(f"{'figure':24}{'at most':>9}" + "".join(f"{app:>10}" for app in args.apps))
    for name, goal, values in rows:
        print(f"{name:24}{goal:9}" + "".join(f"{value:10}" for value in values))
    machine = re.sub(r"\W+", "-", f"{result['device']['name']}-{os.cpu_count()}-cores").strip("-").lower()
    out = args.out or RESULTS / f"live-{machine}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {os.path.relpath(out)}")
    if out.parent == RESULTS:
        quote()
    return int(any(value > goal for _, goal, values in rows for value in values))


if __name__ == "__main__":
    sys.exit(main())
