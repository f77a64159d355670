"""The command line: `omni-lite` or `python -m omni_lite`, with talk, train, evaluate, data and bench.

It imports the subpackages inside functions, as `load.py` does.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omni_lite.assistant import Assistant
    from omni_lite.recipes.progress import Recipe

ERRORS = (OSError, ValueError)               # the library raises these, with one sentence each
DATA = Path("data/lite")                     # where `make data` puts the data set


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 after an error message on stderr."""
    args = parser().parse_args(argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        args.command(args)
        return 0
    except ERRORS as error:
        print(f"omni_lite: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("omni_lite: stopped", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="python -m omni_lite", description="A model that hears and talks.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    talk = commands.add_parser("talk", help="answer recorded questions aloud")
    talk.add_argument("file", nargs="+", metavar="FILE", help="a recording; for the T1 tasks a text in quotes")
    talk.add_argument("--json", action="store_true", help="print only JSON to stdout, one object a line")
    talk.add_argument("--out", type=Path, help="the answer's wav file, or a folder for several FILEs")
    talk.add_argument("--task", default="A1A2", choices=("A1A2", "A1T2", "A1T1", "T1A2", "T1T2"))
    talk.add_argument("--preset", default="lite",
                      help="lite, mini-omni, or smollm2, a chat model with ears and a voice (default: lite)")
    talk.add_argument("--llm", metavar="NAME", help="any chat model: a folder or an id on the Hugging Face hub")
    talk.add_argument("--ears", default="tiny.en", metavar="NAME",
                      help="of a chat model: a Whisper such as small.en, or adapter (default: tiny.en)")
    talk.add_argument("--voice-only", action="store_true", help="read the FILEs, which are texts, aloud")
    talk.add_argument("--weights", metavar="FOLDER_OR_ID",
                      help="a folder of weights instead of the preset's own; for mini-omni a folder of the release "
                           "(with or without small.pt and snac_24khz/), an id on the Hugging Face hub, or random; "
                           "for a chat model the voice's folder")
    talk.add_argument("--limit", type=int, metavar="N", help="cut the answer after N frames of 85 ms, or N tokens")
    talk.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    talk.add_argument("--precision", choices=("fp32", "bf16", "int8"),
                      help="decode with the fast path at this precision (default: fp32 for lite, else the "
                           "readable path)")
    talk.add_argument("--batch-parallel", action=argparse.BooleanOptionalAction, default=True,
                      help="take the text from a second batch row that only writes (the paper's section 3.2)")
    talk.add_argument("--seed", type=int, default=0, help="of the voice's sampling")
    talk.set_defaults(command=run_talk)

    train = commands.add_parser("train", help="train a preset from nothing, or an ASR adapter for an LLM; resumes")
    train.add_argument("--preset", default="lite", choices=("lite", "mini-omni", "smollm2", "voice"))
    train.add_argument("--data", type=Path, help="the data set (default: data/lite, as `make data` builds it; the "
                                                 "recipe of the voice makes its own in data/voice)")
    train.add_argument("--run", type=Path, help="the folder of the run; the weights go to RUN/weights (default: "
                                                "runs/PRESET)")
    train.add_argument("--only", help="run only this stage")
    train.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    train.set_defaults(command=run_train)

    evaluate = commands.add_parser("evaluate", help="measure every figure, write them to the card and a table")
    evaluate.add_argument("--data", type=Path, default=DATA, help="the data set; `make data-test` is enough")
    evaluate.add_argument("--preset", default="lite", choices=("lite", "smollm2"))
    evaluate.add_argument("--weights", type=Path, metavar="FOLDER",
                          help="for lite, another folder than the committed one, such as runs/lite/weights")
    evaluate.add_argument("--clips", type=int, metavar="N",
                          help="measure at most N clips of each set and leave the card as it is (default: all)")
    evaluate.add_argument("--sets", default="test", choices=("test", "dev"))
    evaluate.add_argument("--out", type=Path, help="a JSON file for all details, with the wrong answers")
    evaluate.add_argument("--keep-times", action="store_true",
                          help="keep the card's two times of the lite model, for example on a busy machine")
    evaluate.add_argument("--seeds", type=int, default=4, metavar="N",
                          help="say each answer of the lite model with N seeds (default: 4)")
    evaluate.set_defaults(command=run_evaluate)

    data = commands.add_parser("data", help="choose the committed subset and add the answers' codes")
    data.add_argument("--data", type=Path, default=DATA)
    data.add_argument("--out", type=Path, default=Path("data/subset"))
    data.add_argument("--weights", type=Path, metavar="FOLDER", help="the folder of the codec that makes the "
                                                                     "codes (default: the committed one)")
    data.set_defaults(command=run_data)

    bench = commands.add_parser("bench", help="time the decoders at full size, on this machine")
    bench.add_argument("--tiny", action="store_true", help="a toy size, to test that everything runs")
    bench.add_argument("--device", default="cpu", help="cpu or cuda")
    bench.add_argument("--variants", nargs="+", metavar="NAME", help="such as release bf16 int8/onednn (default: all)")
    bench.add_argument("--steps", type=int, default=100, help="timed steps of each variant")
    bench.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's default")
    bench.add_argument("--out", type=Path, help="the folder of the JSON (default: benchmarks/results)")
    bench.set_defaults(command=run_bench)
    return top


def run_talk(args: argparse.Namespace) -> None:
    """Answer every FILE in turn."""
    from omni_lite.recording import load_question

    if args.preset == "smollm2" or args.llm or args.voice_only:
        from omni_lite.chat.talk import talk_as_chat
        from omni_lite.recipes.smollm2.listen import Listener

        return talk_as_chat(args, load_question, lambda device: Listener.load(device=device))
    from omni_lite.fast import quick
    from omni_lite.load import load_assistant
    from omni_lite.talk import talk
    from omni_lite.threads import use_one_thread_if_small

    def load() -> "Assistant":
        assistant = load_assistant(args.preset, device=args.device, weights=args.weights, precision=args.precision)
        use_one_thread_if_small(assistant.model)
        return quick(assistant) if args.preset == "lite" else assistant    # mini-omni would need twice the memory

    talk(args, load, load_question, batch_parallel=args.batch_parallel)


def run_train(args: argparse.Namespace) -> None:
    """Run all stages of a recipe, or one."""
    from omni_lite.assistant import check_device
    from omni_lite.fast.memory import keep_freed_memory

    check_device(args.device)
    keep_freed_memory()
    run = (args.run or Path("runs") / args.preset).resolve()
    data = args.data or (Path("data/voice") if args.preset == "voice" else DATA)
    recipe_of(args.preset)(data, run, args.device).work_off(args.only)


def recipe_of(preset: str) -> "Callable[[Path, Path, str], Recipe]":
    """The function that makes a preset's recipe from the data set, the run's folder and the device."""
    if preset == "mini-omni":
        from omni_lite.recipes.paper import paper_recipe

        return paper_recipe
    if preset == "smollm2":
        from omni_lite.recipes.smollm2.train import smollm2_recipe

        return smollm2_recipe
    if preset == "voice":
        from omni_lite.recipes.voice.stages import voice_recipe

        return voice_recipe
    from omni_lite.recipes.lite.stages import lite_recipe

    return lite_recipe


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure the committed weights, or others."""
    if args.preset == "smollm2":
        from omni_lite.recipes.smollm2.evaluate import evaluate_smollm2

        if args.weights:
            raise ValueError("--weights is for the lite preset: leave it out, smollm2 uses the committed adapter.")
        evaluate_smollm2(args.data, args.sets, args.clips, args.out)
    else:
        from omni_lite.recipes.lite.evaluate import evaluate_lite

        evaluate_lite(args.data, args.sets, args.clips, args.out, args.keep_times, args.seeds, args.weights)


def run_data(args: argparse.Namespace) -> None:
    """Write the subset."""
    from omni_lite.folder import CHECKPOINTS
    from omni_lite.recipes.lite.subset import write_subset

    write_subset(args.data, args.out, args.weights or CHECKPOINTS / "lite")


def run_bench(args: argparse.Namespace) -> None:
    """Run benchmarks/decode.py, which only a clone of the repository has."""
    import runpy

    script = Path(__file__).resolve().parent.parent / "benchmarks" / "decode.py"
    if not script.is_file():
        raise FileNotFoundError(f"{script} does not exist: run the benchmark from a clone of the repository.")
    if args.steps < 1:
        raise ValueError(f"--steps {args.steps} leaves nothing to time: give 1 or more.")
    options = ["--device", args.device, "--steps", str(args.steps), "--threads", str(args.threads)]
    options += ["--tiny"] * args.tiny + (["--out", str(args.out)] if args.out else [])
    options += ["--variants", *args.variants] if args.variants else []
    runpy.run_path(str(script), run_name="benchmarks.decode")["main"](options)
