"""A whole model, ready to be asked: ears, language model, codec and tokenizer from one folder.

A folder holds   config.json  tokenizer.json  card.json  codec.safetensors
and one or more  <phase>*.safetensors  with the parts that each training phase changed.

The `mini-omni` preset is read from a folder of the release instead, see `release.py`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from omni_lite.codec import LiteSNAC, Snac, build_codec
from omni_lite.config import MINI_OMNI, OmniConfig
from omni_lite.data import load_tokenizer
from omni_lite.fast import FastDecoder
from omni_lite.generate import Decoder, Sampling, Step, generate
from omni_lite.hear import Ears
from omni_lite.model import OmniModel
from omni_lite.release import RELEASE_ID, SNAC_FOLDER, read_tokenizer, release_folder
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE
from omni_lite.weights import (
    RESTORE,
    copy_tensors,
    load_safetensors,
    load_snac,
    load_whisper,
    random_whisper,
    unpack_int,
)

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "data" / "checkpoints"
LAST_PHASE = "final"
# Which files make a model "as it was after" a phase, later ones over earlier ones.
LINEAGE = {
    "text": ("text",),
    "phase1a": ("text", "phase1a"),
    "phase1b": ("text", "phase1a", "phase1b"),
    "phase2": ("text", "phase1a", "phase1b", "phase2"),
    "phase3": ("phase3",),
    "ears": ("phase3", "ears"),
    "merged": ("phase3", "merged"),
    "reading": ("phase3", "merged", "reading"),
    "final": ("phase3", "merged", "reading", "final"),
}
SAMPLING = Sampling(audio_temperature=0.2, top_k=30)
# Only the last phase's voice has learnt to speak without reading, too (`Phase.unread`), and can be led away from that.
GUIDED = replace(SAMPLING, guidance=1.4)
FRAMES = 150                                 # of an answer, if nothing else is asked for: 12.8 s
RANDOM = "random"                            # in the place of a folder: an untrained model that speaks noise


@dataclass
class Reply:
    """One whole answer, with what it cost.

    wav_24k: (N,) float32, empty for a written answer
    steps:   model steps, each 85.3 ms of the answer
    first_audio_ms, total_ms: from the question in memory to the first samples, and to the last
    """

    text: str = ""
    wav_24k: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    steps: int = 0
    first_audio_ms: float | None = None
    total_ms: float = 0.0
    reason: str = ""

    @property
    def audio_s(self) -> float:
        """Seconds of the spoken answer."""
        return len(self.wav_24k) / CODEC_RATE

    @property
    def rtf(self) -> float | None:
        """Real-time factor: time to make over time to play; below 1 keeps up."""
        return self.total_ms / 1000 / self.audio_s if self.audio_s else None


class Assistant:
    """Ears, model, codec and tokenizer; `ask` streams an answer, `answer` gives it whole.

    sampling, frames: how and how long it speaks where `ask` is told nothing else
    decoder: what runs the model, such as a `FastDecoder`, one answer at a time; None: the readable path
    """

    def __init__(
        self,
        ears: Ears,
        model: OmniModel,
        codec: LiteSNAC | Snac,
        tokenizer: Tokenizer,
        sampling: Sampling = SAMPLING,
        frames: int = FRAMES,
        decoder: Decoder | None = None,
    ) -> None:
        self.ears, self.model, self.codec, self.tokenizer = ears, model.eval(), codec.eval(), tokenizer
        self.sampling, self.frames, self.decoder = sampling, frames, decoder

    @classmethod
    def load(
        cls,
        preset: str = "lite",
        phase: str = LAST_PHASE,
        device: str = "cpu",
        weights: str | Path | None = None,
        precision: str | None = None,
    ) -> "Assistant":
        """The model of a preset; the committed one as it was after a training phase.

        weights: another folder than the committed one; for `mini-omni` see `from_release`
        precision: "fp32", "bf16" or "int8": decode with `FastDecoder`; None: the readable path
        raises:  OSError or ValueError of one sentence that names the file and the remedy
        """
        if preset == MINI_OMNI.name:
            return cls.from_release(weights or RELEASE_ID, device, precision)
        folder = Path(weights or CHECKPOINTS / preset)
        model = load_model(folder, phase)
        codec = build_codec(model.config.codec)
        fill(codec, folder / "codec.safetensors")
        ears = Ears.from_pretrained(model.config.ear.whisper)
        device = check_device(device)
        sampling = GUIDED if phase == LAST_PHASE else SAMPLING
        assistant = cls(ears.to(device), model.to(device), codec.to(device), load_tokenizer(folder), sampling)
        return assistant.faster(precision)

    @classmethod
    def from_release(
        cls, source: str | Path = RELEASE_ID, device: str = "cpu", precision: str | None = None
    ) -> "Assistant":
        """The released Mini-Omni, which speaks what is most likely, as it does in its own code.

        source: a folder of the release, its id on the Hugging Face hub, or "random"

        The folder's own small.pt and snac_24khz/ are taken as ears and codec; without them Whisper-small
        and SNAC come from their caches or the internet. "random" needs no files at all: every size is
        the paper's, every weight is drawn, and what is spoken is noise.
        """
        device = check_device(device)
        decoder = None
        if str(source) == RANDOM:
            ears, codec, tokenizer = random_parts(MINI_OMNI)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                decoder = None if precision is None else FastDecoder.drawn(MINI_OMNI, precision, device)
                model = OmniModel(MINI_OMNI).to(device) if decoder is None else decoder.model
        else:
            folder = release_folder(source)
            if precision is None:
                model = OmniModel.from_release(folder).to(device)
            else:
                decoder = FastDecoder.from_release(folder, precision, device)
                model = decoder.model
            tokenizer = read_tokenizer(folder, model.config.vocab)
            ears = Ears(load_whisper(MINI_OMNI.ear.whisper, folder=folder), MINI_OMNI.ear.whole_window)
            codec = Snac(load_snac(folder / SNAC_FOLDER))
        wanted = (model.config.ear.width, model.config.codec.codebook)
        if (ears.width, codec.codebook_size) != wanted:
            raise ValueError(
                f"The model of {source} wants ears of width {wanted[0]} and a codec with {wanted[1]} entries, but "
                f"found were {ears.width} and {codec.codebook_size}: give it its own small.pt and {SNAC_FOLDER}/."
            )
        return cls(ears.to(device), model, codec.to(device), tokenizer, Sampling(), frames=350, decoder=decoder)

    def faster(self, precision: str | None) -> "Assistant":
        """Decode with `FastDecoder` at this precision from now on; None: with the readable path."""
        self.decoder = None if precision is None else FastDecoder(self.model, precision)
        return self

    def quick(self) -> "Assistant":
        """The same parts, decoded by `FastDecoder` in fp32 where it can run this model: for who waits for the answer.

        The numbers are those of the readable path up to rounding, in about half the time. Of an assistant that has a
        decoder already, or a model for which there is none, itself.
        """
        if self.decoder is not None or self.device.type == "mps":
            return self
        try:
            decoder = FastDecoder(self.model, "fp32")
        except ValueError:                   # of a trunk with other blocks
            return self
        return Assistant(self.ears, self.model, self.codec, self.tokenizer, self.sampling, self.frames, decoder)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.bands.device

    def hear(self, wav_16k: Tensor) -> Tensor:
        """(N,) float32 at 16 kHz -> features (1, T, D)."""
        return self.ears.hear(wav_16k.to(self.device), hears_in_bf16(self.decoder, self.ears))

    def ask(
        self,
        question: Tensor | str,
        task: Task | str = Task.A1A2,
        *,
        batch_parallel: bool = True,
        sampling: Sampling | None = None,
        seed: int = 0,
        limit: int | None = None,
        chunk_frames: int = 1,
    ) -> Iterator[Step]:
        """Stream an answer, step by step.

        question: (N,) float32 at 16 kHz for the tasks that hear (A1..), or the (1, T, D) that `hear` made of it;
                  text for those that read (T1..)
        sampling: None: the assistant's own
        limit:    frames (85 ms each) of a spoken answer, tokens of a written one; None: the assistant's own
        """
        task = Task(task)
        if task.hears != isinstance(question, Tensor):
            raise ValueError(f"{task} wants its question as {'sound' if task.hears else 'text'}.")
        features = question if isinstance(question, Tensor) else None
        if features is not None and features.ndim == 1:
            features = self.hear(features)
        text = self.tokenizer.encode(question).ids if isinstance(question, str) else None
        yield from generate(
            self.model,
            self.codec,
            task=task,
            features=features,
            text=text,
            batch_parallel=batch_parallel,
            sampling=sampling or self.sampling,
            seed=seed,
            limit=self.frames if limit is None else limit,
            chunk_frames=chunk_frames,
            decode_text=self.decode,
            decoder=self.decoder,
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """Token ids -> text, without the space that starts the first word."""
        return self.tokenizer.decode(list(tokens)).removeprefix(" ")

    def answer(
        self,
        question: Tensor | str,
        task: Task | str = Task.A1A2,
        watch: Callable[[Step, float, float], None] | None = None,
        **how: Any,
    ) -> Reply:
        """The whole answer at once, timed; other arguments as in `ask`.

        watch: called after every step with the step, the ms since the question, the seconds of sound so far
        """
        reply, began = Reply(), perf_counter()
        chunks: list[np.ndarray] = []
        for step in self.ask(question, task, **how):
            reply.text += step.text
            reply.steps += 1
            if step.pcm is not None:
                if not chunks:
                    reply.first_audio_ms = 1000 * (perf_counter() - began)
                chunks.append(step.pcm)
            reply.reason = step.reason or ""
            if watch is not None:
                watch(step, 1000 * (perf_counter() - began), sum(map(len, chunks)) / CODEC_RATE)
        reply.total_ms = 1000 * (perf_counter() - began)
        if chunks:
            reply.wav_24k = np.concatenate(chunks)
        return reply

    def warm_up(self) -> None:
        """Answer one second of faint noise, so that the first real question does not pay for set-up."""
        generator = torch.Generator().manual_seed(0)
        self.answer(0.01 * torch.randn(16_000, generator=generator), limit=3)


def hears_in_bf16(decoder: Decoder | None, ears: Ears) -> bool:
    """Whether Whisper may round to bfloat16: where the model that listens rounds more coarsely itself, and gains by it.

    Whisper itself is never packed as int8. Its whole window of 30 s, as the release hears, is most of the wait for a
    first sound, and bfloat16 halves that (`make bench`); of a short window it would save next to nothing, and change
    what is heard.
    """
    precision = decoder.precision if isinstance(decoder, FastDecoder) else "fp32"
    return precision == "bf16" or (precision == "int8" and ears.whole_window)


def check_device(device: str) -> str:
    """The device's own name, or one sentence saying that it is not here."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.split(":")[0], False):
        here = ", ".join(name for name, found in there.items() if found)
        raise ValueError(f"The device {device!r} is not available here: choose one of {here}.")
    return device


def load_model(folder: Path, phase: str = LAST_PHASE) -> OmniModel:
    """The language model of a folder, as it was after `phase`.

    Parts that no phase up to then has trained keep their fresh random weights.
    """
    if phase not in LINEAGE:
        raise ValueError(f"There is no phase {phase!r}: choose one of {', '.join(LINEAGE)}.")
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no model folder, it has no config.json: give a trained model's folder.")
    try:
        config = OmniConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no config of this project ({error!r}): restore it (`git checkout`).") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OmniModel(config)
    missing = set(model.state_dict())
    for name in LINEAGE[phase]:
        files = sorted(folder.glob(f"{name}*.safetensors"))
        if not files:
            raise FileNotFoundError(
                f"{folder} has no {name}.safetensors: restore it (`git checkout`) or train it (`make train-lite`).")
        for file in files:
            missing -= set(model.load_over(file))
    if phase == LAST_PHASE and missing:
        raise ValueError(f"{folder} lacks {min(missing)} of the model: restore it (`git checkout`).")
    return model.eval()


def random_parts(config: OmniConfig) -> tuple[Ears, Snac, Tokenizer]:
    """Ears and codec of a preset's sizes with drawn weights, the same every time; lite's tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ears = Ears(random_whisper(config.ear.whisper), config.ear.whole_window)
        codec = build_codec(config.codec)
        assert isinstance(codec, Snac)
        return ears, codec, load_tokenizer(CHECKPOINTS / "lite")


def fill(module: torch.nn.Module, file: Path) -> None:
    """Read a whole module's weights; one sentence where names or shapes do not fit."""
    copy_tensors(module, unpack_int(load_safetensors(file)), file, RESTORE)
