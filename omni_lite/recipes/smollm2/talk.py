"""`omni-lite talk --preset smollm2`: an LLM that hears but cannot speak answers in text, word by word."""

import argparse
import json
from time import perf_counter

from torch import Tensor

from omni_lite.assistant import check_device
from omni_lite.recipes.smollm2.listen import Listener
from omni_lite.recording import load_question
from omni_lite.streams import Task
from omni_lite.talk import check_limit, peak_rss_mb, read_questions, say_nothing


def talk_in_text(args: argparse.Namespace) -> None:
    """Answer every file of the command line; instead of A1A2 it does A1T2, since it cannot speak."""
    task = Task(args.task)
    check_limit(args.limit)
    check_options(args, task)
    questions = read_questions(args.file, task, load_question)
    device = check_device(args.device)
    say = say_nothing if args.json else print
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


def check_options(args: argparse.Namespace, task: Task) -> None:
    """Refuse, in one sentence, what only a model that speaks can do."""
    if task == Task.T1A2:
        raise ValueError(f"{args.preset} cannot speak: choose the task A1T2, A1T1 or T1T2.")
    given = {"--out": args.out, "--precision": args.precision, "--seed": args.seed,
             "--no-batch-parallel": not args.batch_parallel}
    for name in filter(given.get, given):
        raise ValueError(f"{name} is for a model that speaks: leave it out with --preset {args.preset}.")
