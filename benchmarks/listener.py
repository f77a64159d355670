"""Does a recogniser that had no part in the training agree?  pip install pocketsphinx; python -m benchmarks.listener

Whisper tiny.en judges the spoken answers, and its losses trained the voice and the codec's decoder. So what is said
could have become clear to Whisper alone. CMU PocketSphinx, an older kind of recogniser with its own English model,
knows nothing of it. It makes many more errors, so that only the difference between two rows of the table tells
something: recordings against the same through the codec, and weights against other weights (`--weights`).

Writes `results/listener.json`; needs `data/full` for the recordings (`make data`), and without it leaves them out.
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

from omni_lite.assistant import CHECKPOINTS, Assistant
from omni_lite.audio import to_mono_rate
from omni_lite.codec import LiteSNAC
from omni_lite.data import read_rows
from omni_lite.evaluate import transcribe, wer
from omni_lite.recipe import SUBSET, spoken_answers
from omni_lite.vocab import CODEC_RATE, EAR_RATE
from omni_lite.weights import load_whisper

RESULTS = Path(__file__).parent / "results" / "listener.json"
SILENCE = EAR_RATE // 4                      # before and after each sentence, as in a recording

Listener = Callable[[Sequence[Tensor]], list[str]]


def pocketsphinx() -> Listener:
    """CMU PocketSphinx with the English model that its wheel brings."""
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
    """Whisper tiny.en, the judge of the card's figures."""
    model = load_whisper("tiny.en", full=True)
    return lambda waves: transcribe(model, waves, CODEC_RATE)


def measure(assistant: Assistant, data: Path, answers: int) -> dict[str, Any]:
    """WER in percent of each listener: of recordings, of the same through the codec, of the model's own answers."""
    said: dict[str, tuple[list[str], list[Tensor]]] = {}
    rows = [row for name in ("voices", "facts") for row in read_rows([SUBSET / f"test_{name}.parquet"], sound=False)]
    replies = [assistant.answer(row.question, "T1A2") for row in rows[:answers]]
    said["spoken answers"] = [reply.text for reply in replies], [torch.from_numpy(reply.wav_24k) for reply in replies]
    if list(data.glob("answers-*.parquet")):
        found = islice(((text, wave) for split, text, wave in spoken_answers(data) if split == "test"), 250)
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
    """Measure, print a table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=CHECKPOINTS / "lite", help="another folder of weights")
    parser.add_argument("--data", type=Path, default=Path("data/full"), help="what `make data` built")
    parser.add_argument("--answers", type=int, default=120, help="how many answers are spoken")
    parser.add_argument("--name", default="committed", help="under which name the figures are kept")
    arguments = parser.parse_args()
    pocketsphinx()                           # says at once where it is missing
    figures = measure(Assistant.load(weights=arguments.weights).quick(), arguments.data, arguments.answers)
    for name, row in figures.items():
        print(f"{name:32s}", "  ".join(f"{key} {value}" for key, value in row.items()))
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(kept | {arguments.name: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
