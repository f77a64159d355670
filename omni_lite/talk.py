"""`omni-lite talk`: answer questions from files aloud and report the timing."""

import argparse
import json
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from torch import Tensor

from omni_lite.assistant import Reply
from omni_lite.audio import save_wav
from omni_lite.generate import Step
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE


class Answers(Protocol):
    """What `talk` asks of an assistant."""

    def warm_up(self) -> None: ...
    def hear(self, wav_16k: Tensor) -> Any: ...
    def answer(self, question: Any, task: Task, watch: Any = None, **how: Any) -> Reply: ...


def talk(args: argparse.Namespace, load: Callable[[], Answers], read: Callable[[str], Tensor], **how: Any) -> None:
    """Answer every file of the command line.

    load: makes the assistant; `talk` first checks all questions and options
    read: gives a file's question, (N,) float32 at 16 kHz, such as `recording.load_question`
    how:  more options of `Assistant.ask`
    """
    task = Task(args.task)
    check_limit(args.limit)
    outs = out_paths(args.out, args.file, task)
    questions = read_questions(args.file, task, read)
    say = say_nothing if args.json else print
    say(f"loading the {args.preset} model ...")
    assistant = load()
    assistant.warm_up()
    for name, question, out in zip(args.file, questions, outs, strict=True):
        began, heard, asked = perf_counter(), None, question
        if isinstance(question, Tensor):
            asked = assistant.hear(question)
            hearing_s = perf_counter() - began
            heard = assistant.answer(asked, Task.A1T1, limit=args.limit).text
            say(f"\n{name}\n  heard     {heard}")
            began = perf_counter() - hearing_s           # the time of the transcript does not count
        reply = assistant.answer(asked, task, None if args.json or not task.speaks else show, seed=args.seed,
                                 limit=args.limit, since=began, **how)
        path = None
        if len(reply.wav_24k):
            save_wav(out, reply.wav_24k, CODEC_RATE)
            path = str(out)
        record = dict(
            file=name,
            heard=heard,
            text=reply.text,
            audio_path=path,
            audio_s=round(reply.audio_s, 3),
            first_audio_ms=None if reply.first_audio_ms is None else round(reply.first_audio_ms, 1),
            total_ms=round(reply.total_ms, 1),
            rtf=None if reply.rtf is None else round(reply.rtf, 3),
            steps=reply.steps,
            peak_rss_mb=round(peak_rss_mb()),
        )
        if args.json:
            print(json.dumps(record, ensure_ascii=False), flush=True)
        else:
            report(record)


def show(step: Step, elapsed_ms: float, made_s: float) -> None:
    """Print one step as a line: time, the seven audio tokens, seconds of sound so far, text."""
    frame = " ".join(f"{token:4d}" for token in step.tokens) if step.tokens is not None else ""
    print(f"  {elapsed_ms:6.0f} ms  {frame}  {made_s:5.2f} s  {step.text.strip()}", flush=True)


def report(record: dict) -> None:
    """Print one answer's text and timing."""
    print(f"  answered  {record['text']}")
    if record["audio_path"]:
        print(f"  spoken    {record['audio_path']}, {record['audio_s']:.2f} s\n"
              f"  first audio after {record['first_audio_ms']:.0f} ms, real-time factor {record['rtf']:.2f}, "
              f"{record['steps']} steps, peak memory {record['peak_rss_mb']} MB")


def read_questions(files: Sequence[str], task: Task, read: Callable[[str], Tensor]) -> list[Tensor | str]:
    """Every question: (N,) float32 at 16 kHz of a file for A1 tasks, a checked text for T1 tasks."""
    return [read(name) if task.hears else check_text(name) for name in files]


def check_limit(limit: int | None) -> None:
    """Raise a ValueError if the limit leaves no room for an answer."""
    if limit is not None and limit < 1:
        raise ValueError(f"--limit {limit} leaves no room for an answer: give 1 or more.")


def out_paths(out: Path | None, files: list[str], task: Task) -> list[Path]:
    """The wav file of each answer; raises ValueError if an answer would overwrite a question."""
    paths = answer_paths(out, files, task)
    asked = {Path(name).resolve() for name in files} if task.hears else set()
    for path in paths:
        if path.resolve() in asked:
            raise ValueError(f"The answer would overwrite the question {path}: give another name with --out.")
    return paths


def answer_paths(out: Path | None, files: list[str], task: Task) -> list[Path]:
    """`out_paths` without the comparison with the questions: one file, or one file a question in a folder."""
    if len(files) == 1 and not (out is not None and out.is_dir()):
        path = out or Path("answer.wav")
        if path.suffix.lower() != ".wav":
            raise ValueError(f"--out {path} must end in .wav: answers are written as wav files.")
        return [path]
    folder = out or Path(".")
    if folder.suffix.lower() == ".wav" or folder.is_file():
        raise ValueError(f"--out {folder} is one file, but there are {len(files)} questions: give a folder.")
    stems, paths = set(), []
    for i, name in enumerate(files):
        stem = f"{Path(name).stem}-answer" if task.hears else f"answer-{i + 1}"
        while stem in stems:
            stem += f"-{i + 1}"
        stems.add(stem)
        paths.append(folder / f"{stem}.wav")
    return paths


def check_text(text: str) -> str:
    """A typed question, stripped; raises ValueError if it is empty, too long or not printable."""
    if not text.strip():
        raise ValueError("The question is empty: give a text in quotes.")
    if len(text) > 1000:
        raise ValueError(f"The question has {len(text)} characters: ask in at most 1000.")
    bad = next((c for c in text if unicodedata.category(c) == "Cc"), None)
    if bad is not None:
        raise ValueError(f"The question holds the control character {bad!r}: remove it.")
    return text.strip()


def peak_rss_mb() -> float:
    """Peak memory of this process in MB (10^6 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def say_nothing(*_: object, **__: object) -> None:
    """Replaces `print` if stdout is for JSON only."""
