"""The command line: python -m omni_lite talk | train | evaluate | data | bench."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ERRORS = (OSError, ValueError)               # what the library raises, with one sentence each


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, or 1 after one sentence on stderr."""
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
    talk.add_argument("--json", action="store_true", help="one JSON object a line on stdout, nothing else there")
    talk.add_argument("--out", type=Path, help="the answer's wav, or a folder where there are several FILEs")
    talk.add_argument("--task", default="A1A2", choices=("A1A2", "A1T2", "A1T1", "T1A2", "T1T2"))
    talk.add_argument("--preset", default="lite",
                      help="lite, mini-omni, or smollm2, which hears and writes (default: lite)")
    talk.add_argument("--weights", metavar="FOLDER_OR_ID",
                      help="another folder than the preset's own; for mini-omni a folder of the release (which may "
                           "also hold small.pt and snac_24khz/), an id on the Hugging Face hub, or random")
    talk.add_argument("--limit", type=int, metavar="N", help="cut the answer after N frames of 85 ms, or N tokens")
    talk.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    talk.add_argument("--precision", choices=("fp32", "bf16", "int8"),
                      help="decode with the fast path at this precision (default: fp32 for lite, else the "
                           "readable path)")
    talk.add_argument("--batch-parallel", action=argparse.BooleanOptionalAction, default=True,
                      help="let a second row that only writes think out the text (the paper's section 3.2)")
    talk.add_argument("--seed", type=int, default=0, help="of the voice's sampling")
    talk.set_defaults(command=run_talk)

    train = commands.add_parser("train", help="train the lite preset from nothing, or an LLM's ears; resumably")
    train.add_argument("--preset", default="lite", choices=("lite", "smollm2"))
    train.add_argument("--data", type=Path, help="what `make data` or `make data-short` built (default: data/full, or "
                                                 "data/short for the short recipe)")
    train.add_argument("--run", type=Path, help="where unfinished work is kept (default: runs/PRESET, or runs/short)")
    train.add_argument("--out", type=Path, help="where the weights go (default: the committed checkpoints, or "
                                                "runs/short/lite)")
    train.add_argument("--recipe", choices=("whole", "short"), default="whole",
                       help="of the lite preset: of the committed weights, or all phases in fewer steps on a quarter "
                            "of its clips (default: whole)")
    train.add_argument("--only", help="one stage alone")
    train.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="for the lite preset (default: cpu)")
    train.set_defaults(command=run_train)

    evaluate = commands.add_parser("evaluate", help="measure every figure, write the card and a table")
    evaluate.add_argument("--data", type=Path, default=Path("data/full"))
    evaluate.add_argument("--preset", default="lite")
    evaluate.add_argument("--weights", type=Path, metavar="FOLDER",
                          help="of the lite preset, another folder than the committed one, such as runs/short/lite")
    evaluate.add_argument("--clips", type=int, help="at most so many clips of each set (default: all)")
    evaluate.add_argument("--sets", default="test", choices=("test", "dev"))
    evaluate.add_argument("--out", type=Path, help="a JSON file for all details, wrong answers included")
    evaluate.add_argument("--keep-times", action="store_true",
                          help="the lite model's two times stay as the card has them: for a busy machine, or another")
    evaluate.add_argument("--seeds", type=int, default=4, metavar="N",
                          help="say each answer of the lite model N times, so that luck counts less (default: 4)")
    evaluate.set_defaults(command=run_evaluate)

    data = commands.add_parser("data", help="pick the committed subset, put in the answers' codes")
    data.add_argument("--data", type=Path, default=Path("data/full"))
    data.add_argument("--out", type=Path, default=Path("data/subset"))
    data.set_defaults(command=run_data)

    bench = commands.add_parser("bench", help="time the decoders at full size, on this machine")
    bench.add_argument("--tiny", action="store_true", help="a toy size, to see that all of it runs")
    bench.add_argument("--device", default="cpu", help="cpu or cuda")
    bench.add_argument("--variants", nargs="+", metavar="NAME", help="such as release bf16 int8/onednn (default: all)")
    bench.add_argument("--steps", type=int, default=100, help="timed steps of each variant")
    bench.add_argument("--threads", type=int, default=0, help="of the CPU; 0: as torch decides")
    bench.add_argument("--out", type=Path, help="the folder of the JSON (default: benchmarks/results)")
    bench.set_defaults(command=run_bench)
    return top


def run_talk(args: argparse.Namespace) -> None:
    """Answer every FILE in turn."""
    from omni_lite.talk import talk

    talk(args)


def run_train(args: argparse.Namespace) -> None:
    """All stages, or one."""
    from omni_lite.align import train_smollm2
    from omni_lite.recipe import RECIPES, train_lite
    from omni_lite.train import keep_freed_memory

    keep_freed_memory()
    short = args.recipe == "short"
    data = args.data or Path("data") / ("short" if short else "full")
    run = args.run or Path("runs") / ("short" if short else args.preset)
    if args.preset == "smollm2":
        if short:
            raise ValueError("--recipe short is for the lite preset: leave it out, smollm2's ears have one recipe.")
        if args.device != "cpu":
            raise ValueError("--device is for the lite preset: leave it out, smollm2 learns on the CPU.")
        return train_smollm2(data, run, args.out, args.only)
    train_lite(data, run, args.out or (run / "lite" if short else None), args.only, args.device, RECIPES[args.recipe])


def run_evaluate(args: argparse.Namespace) -> None:
    """Figures of the committed weights."""
    from omni_lite.align import evaluate_smollm2
    from omni_lite.recipe import evaluate_lite

    if args.preset == "smollm2":
        if args.weights:
            raise ValueError("--weights is for the lite preset: leave it out, smollm2's ears are the committed ones.")
        return evaluate_smollm2(args.data, args.sets, args.clips, args.out)
    evaluate_lite(args.data, args.preset, args.sets, args.clips, args.out, args.keep_times, args.seeds,
                  args.weights)


def run_data(args: argparse.Namespace) -> None:
    """The committed subset."""
    from omni_lite.recipe import write_subset

    write_subset(args.data, args.out)


def run_bench(args: argparse.Namespace) -> None:
    """benchmarks/decode.py of this repository, which is no part of the package."""
    import runpy

    script = Path(__file__).resolve().parent.parent / "benchmarks" / "decode.py"
    if not script.is_file():
        raise FileNotFoundError(f"{script} is not here: run the benchmark from a clone of the repository.")
    if args.steps < 1:
        raise ValueError(f"--steps {args.steps} leaves nothing to time: give 1 or more.")
    options = ["--device", args.device, "--steps", str(args.steps), "--threads", str(args.threads)]
    options += ["--tiny"] * args.tiny + (["--out", str(args.out)] if args.out else [])
    options += ["--variants", *args.variants] if args.variants else []
    runpy.run_path(str(script), run_name="benchmarks.decode")["main"](options)


if __name__ == "__main__":
    sys.exit(main())
