"""Does an independent recogniser confirm the figures?  pip install pocketsphinx; python -m benchmarks.listener

Whisper tiny.en measures the spoken answers. The training of the committed voice and of the codec's decoder also used
it, so their speech could be clear only to Whisper. CMU PocketSphinx is an older recogniser with its own English model,
independent of the training. It makes many more errors than Whisper. So compare two rows of the table within its column:
recordings with the same recordings through the codec, or two sets of weights (`--weights`).

Writes `results/listener.json`. The recordings come from `data/test` (`make data-test`); without that folder the table
leaves them out.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omni_lite.assistant import Assistant
from omni_lite.audio import to_mono_rate
from omni_lite.data import read_rows
from omni_lite.evaluate import transcribe, wer
from omni_lite.fast import quick
from omni_lite.folder import CHECKPOINTS
from omni_lite.interop.whisper import load_whisper
from omni_lite.litesnac import LiteSNAC
from omni_lite.load import load_assistant
from omni_lite.recipes.lite.corpus import SUBSET, spoken_answers
from omni_lite.vocab import CODEC_RATE, EAR_RATE

RESULTS = Path(__file__).parent / "results" / "listener.json"
SILENCE = EAR_RATE // 4                      # samples before and after each sentence
RECORDINGS = 250

Listener = Callable[[Sequence[Tensor]], list[str]]


def pocketsphinx() -> Listener:
    """CMU PocketSphinx with the English model of its wheel."""
    try:
        from pocketsphinx import Decoder  # type: ignore[import-not-found]
    except ImportError as error:
        raise SystemExit("This benchmark needs PocketSphinx: run `pip install pocketsphinx`.") from error
    decoder = Decoder(samprate=EAR_RATE, loglevel="FATAL")

    def hear(wave: Tensor) -> str:
        wave = torch.nn.functional.pad(to_mono_rate(wave, CODEC_RATE, EAR_RATE), (SILENCE, SILENCE))
        decoder.start_utt()
        decoder.process_raw((wave.clamp(-1, 1).numpy() * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return lambda waves: [hear(wave) for wave in waves]


def whisper() -> Listener:
    """Whisper tiny.en, which measures the card's figures."""
    model = load_whisper("tiny.en", full=True)
    return lambda waves: transcribe(model, waves, CODEC_RATE)


def measure(assistant: Assistant, data: Path, answers: int) -> dict[str, Any]:
    """WER of each listener in percent, on the model's answers, on recordings, and on recordings through the codec."""
    said: dict[str, tuple[list[str], list[Tensor]]] = {}
    rows = [row for name in ("voices", "facts") for row in read_rows([SUBSET / f"test_{name}.parquet"], sound=False)]
    replies = [assistant.answer(row.question, "T1A2") for row in rows[:answers]]
    said["spoken answers"] = [reply.text for reply in replies], [torch.from_numpy(reply.wav_24k) for reply in replies]
    if list(data.glob("answers-*.parquet")):
        found = islice(((text, wave) for split, text, wave in spoken_answers(data) if split == "test"), RECORDINGS)
        texts, waves = map(list, zip(*found, strict=True))
        codec = assistant.codec
        assert isinstance(codec, LiteSNAC)
        said["recordings"] = texts, waves
        said["recordings through the codec"] = \
            texts, [codec.decode(codec.encode(wave[None, None]))[0, 0, : len(wave)] for wave in waves]
    listeners = {"Whisper tiny.en": whisper(), "PocketSphinx": pocketsphinx()}
    figures: dict[str, Any] = {}
    for name, (texts, waves) in said.items():
        figures[name] = dict(sentences=len(texts))
        figures[name] |= {who: round(wer(texts, hear(waves)), 1) for who, hear in listeners.items()}
    return figures


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=CHECKPOINTS / "lite",
                        help="a model's folder (default: the committed one)")
    parser.add_argument("--data", type=Path, default=Path("data/test"), help="the data set of `make data-test`")
    parser.add_argument("--answers", type=int, default=120, help="number of spoken answers")
    parser.add_argument("--name", default="committed", help="the name of these figures in the JSON file")
    arguments = parser.parse_args()
    pocketsphinx()                           # fails early if it is not installed
    figures = measure(quick(load_assistant(weights=arguments.weights)), arguments.data, arguments.answers)
    for name, row in figures.items():
        print(f"{name:32s}", "  ".join(f"{key} {value}" for key, value in row.items()))
    others = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(others | {arguments.name: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
