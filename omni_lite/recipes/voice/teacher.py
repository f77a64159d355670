"""The teacher's speech: hibari reads a text aloud and says when it speaks which phoneme.

hibari (Apache-2.0) is a small text-to-speech network. Its durations are inside its graph; this module makes them an
output, so the alignment of phonemes and sound is given, and nothing has to learn it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

RATE = 24_000
HOP = 600                                    # samples of one unit of hibari's durations: 25 ms


@dataclass(frozen=True)
class Spoken:
    """One sentence of the teacher.

    phonemes: in hibari's alphabet, one character each
    start:    sample at which the first one begins, after silence;  ends: (phonemes,) samples at which each ends
    wave:     (N,) float32 at 24 kHz
    """

    phonemes: str
    start: int
    ends: np.ndarray
    wave: np.ndarray


class Teacher:
    """Reads sentences aloud, reproducibly."""

    def __init__(self) -> None:
        import onnx
        import onnxruntime
        from hibari.tts import Hibari

        self.hibari = Hibari()
        graph = onnx.load(str(files("hibari") / "assets" / "hibari.onnx"))
        frames = next(node.input[0] for node in graph.graph.node if node.op_type == "CumSum")
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(frames))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(graph.SerializeToString(), options,
                                                    providers=["CPUExecutionProvider"])
        self.phonemize: Callable[[str], list[str]] = self.hibari.phonemize

    def say(self, phonemes: str, seed: int, speed: float = 1.0) -> Spoken:
        """Speak one sentence of phonemes.

        seed: of the sound's noise;  speed: 1.0 is usual
        """
        from hibari import dsp

        known = "".join(one for one in phonemes if one in self.hibari.vocab)
        ids = np.asarray([self.hibari.ids(known)], np.int64)
        *spectra, frames = self.session.run(None, dict(ids=ids, speed=np.asarray([speed], np.float32)))
        wave = dsp.synth(*(one[0] for one in spectra), np.random.default_rng(seed))
        borders = np.cumsum(frames.reshape(-1)).astype(np.int64) * HOP
        if borders[-1] != len(wave):
            raise ValueError(f"hibari's durations give {borders[-1]} samples, its sound has {len(wave)}: this version "
                             "of hibari has another graph; install the one of constraints.txt.")
        return Spoken(known, int(borders[0]), borders[1:-1], wave)


def alphabet() -> list[str]:
    """hibari's phonemes, in the order of their ids."""
    vocab = json.loads((files("hibari") / "assets" / "vocab.json").read_text(encoding="utf-8"))
    return sorted(vocab, key=vocab.__getitem__)
