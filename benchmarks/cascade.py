"""How much sooner does a voice that streams speak than a cascade?  python -m benchmarks.cascade FOLDER

FOLDER holds `people.tsv` as in `benchmarks.people`; ten of its recordings are asked, the questions first.

    cascade    Whisper, SmolLM2, hibari: each waits for a whole question or sentence of the one before
    words      Whisper's words, SmolLM2, and the streaming voice
    adapter    the same with SmolLM2's ASR adapter as ears
    lite       the lite preset, which knows a smaller world

Every system runs in a new process. Times are ms after the question's end: when it was heard, when the first text was
there, and when the first sound was. WER is Whisper's of the sound against the system's own text, DNSMOS its quality.

Writes `results/cascade-<machine>.json` and the table in docs/performance.md.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.decode import device_name
from benchmarks.people import read_people
from omni_lite.chat.assistant import ChatAssistant, load_chat_assistant
from omni_lite.evaluate import transcribe, wer
from omni_lite.fast import quick
from omni_lite.generate import Step
from omni_lite.interop.whisper import load_whisper
from omni_lite.load import load_assistant
from omni_lite.recipes.lite.evaluate import put_between
from omni_lite.recipes.smollm2.listen import Listener
from omni_lite.recipes.voice.judge import dnsmos
from omni_lite.recipes.voice.speech import TRIM
from omni_lite.recipes.voice.teacher import Teacher
from omni_lite.talk import peak_rss_mb
from omni_lite.threads import use_one_thread_if_small
from omni_lite.vocab import CODEC_RATE
from omni_lite.voice.speak import g2p
from omni_lite.voice.words import plain_text

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
MARKS = "<!-- cascade -->", "<!-- /cascade -->"
QUESTIONS = 10
STAGES = ("heard", "text", "sound")
Ask = Callable[[Any], Iterator[Step]]


def cascade() -> tuple[Callable[[Tensor], Any], Ask]:
    """Ears, and a function from words to steps with a sentence of sound each."""
    chat, teacher, split = load_chat_assistant(speaks=False), Teacher(), g2p()[1]
    chat.warm_up()

    def aloud(sentence: str) -> np.ndarray:
        waves = [teacher.say(one, seed=0).wave[TRIM:] for one in teacher.phonemize(plain_text(sentence))]
        return np.concatenate([*waves, np.zeros(CODEC_RATE // 5, np.float32)])

    def ask(words: str) -> Iterator[Step]:
        text, said = "", 0
        for step in chat.ask(words, "T1T2"):
            text += step.text
            sentences = split(text)
            ready = sentences if step.done else sentences[:-1]
            waves = [aloud(one) for one in ready[said:]]
            said = len(ready)
            yield Step(step.index, None, 0, step.text, None, np.concatenate(waves) if waves else None, step.reason)

    return chat.hear, ask


def words() -> tuple[Callable[[Tensor], Any], Ask]:
    """A chat model with Whisper's decoder and the voice."""
    chat = load_chat_assistant()
    chat.warm_up()
    return chat.hear, chat.ask


def adapter() -> tuple[Callable[[Tensor], Any], Ask]:
    """A chat model with its ASR adapter and the voice."""
    chat = load_chat_assistant()
    heard = ChatAssistant(Listener.load(), chat.llm, chat.mouth)
    heard.warm_up()
    return heard.hear, heard.ask


def lite() -> tuple[Callable[[Tensor], Any], Ask]:
    """The lite preset."""
    assistant = quick(load_assistant("lite"))
    use_one_thread_if_small(assistant.model)
    assistant.warm_up()
    return assistant.hear, assistant.ask


SYSTEMS = dict(cascade=cascade, words=words, adapter=adapter, lite=lite)


def measure(name: str, people: Path) -> dict[str, Any]:
    """All figures of one system, in this process."""
    asked = sorted(read_people(people), key=lambda one: one[0] != "question")[:QUESTIONS]
    hear, ask = SYSTEMS[name]()
    times: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "rtf")}
    texts, waves = [], []
    for _, _, question in asked:
        began, reached, text, sound = perf_counter(), {}, "", []
        heard = hear(question)
        reached["heard"] = perf_counter() - began
        for step in ask(heard):
            text += step.text
            if step.text.strip():
                reached.setdefault("text", perf_counter() - began)
            if step.pcm is not None:
                reached.setdefault("sound", perf_counter() - began)
                sound.append(step.pcm)
        total = perf_counter() - began
        texts.append(text)
        waves.append(np.concatenate(sound) if sound else np.zeros(CODEC_RATE, np.float32))
        for stage in STAGES:
            times[stage].append(1000 * reached.get(stage, total))
        times["rtf"].append(total * CODEC_RATE / len(waves[-1]))
    memory = peak_rss_mb()
    understood = transcribe(load_whisper("tiny.en", full=True), list(map(torch.from_numpy, waves)), CODEC_RATE)
    return dict(
        system=name, memory_mb=round(memory), wer=round(wer([plain_text(text) for text in texts], understood), 1),
        dnsmos=dnsmos(waves), rtf=round(median(times["rtf"]), 2),
        **{f"{stage}_ms": dict(median=round(median(times[stage])), p95=round(float(np.percentile(times[stage], 95))))
           for stage in STAGES},
        answers=texts)


def as_table(found: list[dict[str, Any]]) -> str:
    """The table of docs/performance.md: medians, and the 95th percentile in brackets."""
    rows = ["| system | heard | first text | first audio | real-time factor | WER | DNSMOS | memory |",
            "|---" * 8 + "|"]
    for one in found:
        cells = [f"{one[f'{stage}_ms']['median']} ({one[f'{stage}_ms']['p95']}) ms" for stage in STAGES]
        rows.append(f"| {one['system']} | {' | '.join(cells)} | {one['rtf']} | {one['wer']} % | {one['dnsmos']} | "
                    f"{one['memory_mb']} MB |")
    return "\n".join(rows)


def main() -> None:
    """Measure every system in a new process, print a table, write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--here", action="store_true", help="measure one system in this process and print JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.systems[0], args.folder)))
        return
    found = []
    for name in args.systems:
        command = [sys.executable, "-m", "benchmarks.cascade", str(args.folder), "--here", "--systems", name]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout
                                .splitlines()[-1]))
        print(as_table(found[-1:]).splitlines()[-1], flush=True)
    if args.systems == list(SYSTEMS):
        machine = device_name("cpu")
        slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
        target = RESULTS / f"cascade-{slug}.json"
        target.write_text(json.dumps(dict(machine=machine, systems=found), indent=1) + "\n", encoding="utf-8")
        put_between(DOCS, as_table(found), MARKS)


if __name__ == "__main__":
    main()
