"""`python -m omni_lite talk`: questions from files, answers aloud (or in text), what they cost."""

import argparse
import json
import sys
import unicodedata
from pathlib import Path
from time import perf_counter

from torch import Tensor

from omni_lite.assistant import Assistant, check_device
from omni_lite.audio import load_question, save_wav
from omni_lite.config import LITE, SMOLLM2
from omni_lite.generate import Step
from omni_lite.listen import Listener
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE


def talk(args: argparse.Namespace) -> None:
    """Answer every file of the command line; the first one that cannot be read stops the rest.

    Everything is checked before the model is loaded where that is possible.
    """
    task = Task(args.task)
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit {args.limit} leaves no room for an answer: give 1 or more.")
    if args.preset == SMOLLM2.name:
        return talk_in_text(args, task)
    outs = out_paths(args.out, args.file, task)
    questions = [load_question(name) if task.hears else check_text(name) for name in args.file]
    say = _quiet if args.json else print
    say(f"loading the {args.preset} model ...")
    assistant = Assistant.load(args.preset, device=args.device, weights=args.weights,
                               precision=args.precision)
    if args.preset == LITE.name:             # the paper's size would lie in memory twice
        assistant = assistant.quick()
    assistant.warm_up()
    for name, question, out in zip(args.file, questions, outs, strict=True):
        heard = assistant.answer(question, Task.A1T1, limit=args.limit).text if task.hears else None
        if heard is not None:
            say(f"\n{name}\n  heard     {heard}")
        reply = assistant.answer(question, task, None if args.json else show, batch_parallel=args.batch_parallel,
                                 seed=args.seed, limit=args.limit)
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


def talk_in_text(args: argparse.Namespace, task: Task) -> None:
    """The same for an LLM that hears but has no voice: the answer appears word by word.

    Without a task of one's own (A1A2) it does what it can of that: it hears and writes.
    """
    if task == Task.T1A2:
        raise ValueError(f"{args.preset} has no voice: choose the task A1T2, A1T1 or T1T2.")
    if args.out is not None:
        raise ValueError(f"--out {args.out}: {args.preset} has no voice, its answers are text on the screen.")
    questions = [load_question(name) if task.hears else check_text(name) for name in args.file]
    device = check_device(args.device)
    say = _quiet if args.json else print
    say(f"loading the {args.preset} model ...")
    listener = Listener.load(args.weights, device)
    for name, question in zip(args.file, questions, strict=True):
        began = perf_counter()
        heard = listener.hear(question) if isinstance(question, Tensor) else None
        if heard is not None:
            say(f"\n{name}\n  heard     {heard}")
        text, steps = heard or "", 0
        if task != Task.A1T1:
            asked, text = question if heard is None else heard, ""
            say("  answered  ", end="", flush=True)
            for piece in listener.ask(asked, "answer", args.limit):
                say(piece, end="", flush=True)
                text, steps = text + piece, steps + 1
            say()
        total_ms = 1000 * (perf_counter() - began)
        if args.json:
            record = dict(file=name, heard=heard, text=text.strip(), audio_path=None, audio_s=None, first_audio_ms=None,
                          total_ms=round(total_ms, 1), rtf=None, steps=steps, peak_rss_mb=round(peak_rss_mb()))
            print(json.dumps(record, ensure_ascii=False), flush=True)


def show(step: Step, elapsed_ms: float, made_s: float) -> None:
    """One step in one line: when, the seven tokens, the sound made so far, the word."""
    frame = " ".join(f"{token:4d}" for token in step.tokens) if step.tokens is not None else ""
    print(f"  {elapsed_ms:6.0f} ms  {frame}  {made_s:5.2f} s  {step.text.strip()}", flush=True)


def report(record: dict) -> None:
    """One answer's figures in words."""
    print(f"  answered  {record['text']}")
    if record["audio_path"]:
        print(f"  spoken    {record['audio_path']}, {record['audio_s']:.2f} s\n"
              f"  first audio after {record['first_audio_ms']:.0f} ms, real-time factor {record['rtf']:.2f}, "
              f"{record['steps']} steps, peak memory {record['peak_rss_mb']} MB")


def out_paths(out: Path | None, files: list[str], task: Task) -> list[Path]:
    """Where each answer goes: one wav, or one wav in a folder for each of several questions."""
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
    """A typed question: something in it, nothing unprintable, not too long."""
    if not text.strip():
        raise ValueError("The question is empty: give a text in quotes.")
    if len(text) > 1000:
        raise ValueError(f"The question has {len(text)} characters: ask in at most 1000.")
    bad = next((c for c in text if unicodedata.category(c) == "Cc"), None)
    if bad is not None:
        raise ValueError(f"The question holds the control character {bad!r}: remove it.")
    return text.strip()


def peak_rss_mb() -> float:
    """The most memory this process ever held, in MB (10^6 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _quiet(*_: object, **__: object) -> None: ...
