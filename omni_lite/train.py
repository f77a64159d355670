"""Training: the stages as data, and the loops that run any of them, resumably.

The order for a model from nothing:  codec -> text -> phase 1a, 1b -> phase 2 -> phase 3 -> ears, merged, reading,
final -> the codec's decoder and the voice by ear (by_ear.py), the voice by its own choice (preference.py).
A stage is killed and started again without harm: it goes on from its last saved step.
"""

import copy
import ctypes
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from omni_lite.audio import atomic_write
from omni_lite.codec import LiteSNAC, codec_loss
from omni_lite.data import FeatureStore, Heard, Item, Row, augment, batches
from omni_lite.guide import (
    byte_lengths,
    expected_attention,
    expected_copying,
    heads_loss,
    hearing_loss,
    spoken_when,
    teaching_loss,
)
from omni_lite.hear import Ears
from omni_lite.likeness import SoundsAlike, WhisperLikeness
from omni_lite.model import OmniModel
from omni_lite.precision import Muon, mixed_precision
from omni_lite.reading import Snippets, collect, render
from omni_lite.streams import IGNORE, Batch, Task
from omni_lite.vocab import CODEC_RATE, FRAME_ORDER, LEVEL_STRIDES, Vocab

SAVE_SECONDS = 60.0                          # a kill loses at most this much work
REPORT_SECONDS = 15.0
COMPILE_STEPS = 500                          # from here on half a minute of compiling pays
SCRAMBLED = 0.8                              # share of the texts to be copied that are of no sense
BLUR, DEAF = 0.35, 0.1                       # at most, of a feature's spread, and of all dimensions: `masked`
MASKS, LONGEST_GAP = 2, 8                    # gaps in a clip, and how many features of 20 ms they may take
SNIPPET_CLIPS = 30_000                       # at most, from which snippets are cut: `heard_anew`
WORKERS = 6                                  # at most, that make batches for a GPU
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4        # of mallopt(3), as <malloc.h> has them


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, until it ends.

    The GNU C library asks the system anew for every large tensor, and gives it back after use. Each time all its pages
    have to be made and cleared: on two CPU cores that takes a quarter of phase 1a's time and of hearing all clips, and
    a tenth of the codec's. Where there is another C library nothing happens. Source: mallopt(3)
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def cosine(step: int, steps: int, peak: float, end: float, warmup: int) -> float:
    """Learning rate of a step: linear warm-up to `peak`, then half a cosine down to `end`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def round_of(step: int, steps: int, restarts: Sequence[int] = ()) -> tuple[int, int]:
    """Where a step stands in its round of the schedule, and how long that round is.

    Source of warm restarts: SGDR, arXiv 1608.03983. A training that ended too early goes on with all that it knows.
    """
    first = max((start for start in restarts if start <= step), default=0)
    return step - first, min((start for start in restarts if start > step), default=steps) - first


def optimizers_for(trained: Iterable[nn.Parameter], peak: float, turned: Collection[nn.Parameter] = (),
                   rates: Mapping[nn.Parameter, float] = MappingProxyType({}),
                   decay: float = 0.0) -> list[torch.optim.Optimizer]:
    """AdamW for vectors, embeddings and heads; Muon for the matrices in `turned`. See `Loop` for the arguments.

    Muon gives all directions of a matrix's step the same length, so that the weak ones are learnt too. Source:
    Jordan et al. 2024, kellerjordan.github.io/posts/muon; its steps are as long as AdamW's, as in Moonlight, arXiv
    2502.16982, so that both share one learning rate. Each group has its share of it under "rate".
    """
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for p in trained:
        groups.setdefault((p in turned, p.dim() > 1, rates.get(p, 1.0)), []).append(p)
    kinds: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for (muon, matrix, rate), some in groups.items():
        kinds[muon].append(dict(params=some, weight_decay=decay * matrix, rate=rate))
    optimizers: list[torch.optim.Optimizer] = []
    if kinds[False]:
        optimizers.append(torch.optim.AdamW(kinds[False], lr=peak, betas=(0.9, 0.98), fused=True))
    if kinds[True]:
        optimizers.append(Muon(kinds[True], lr=peak))
    return optimizers


@dataclass
class Loop:
    """The part that every stage shares: schedule, autocast, saving, progress.

    modules:  what is saved and restored, by name
    trained:  parameters that the optimizer may change
    rates:    what some of them get of the learning rate; the others get all of it
    turned:   matrices that Muon updates instead of AdamW, see `optimizers_for`
    restarts: steps at which the schedule begins anew, see `round_of`
    last:     what the last of these rounds gets of the learning rate
    folder:   where its state is saved; None: nowhere, so that it cannot go on after a kill
    each:     called after every step with its number, from 0, and its losses
    """

    name: str
    modules: nn.Module
    trained: list[nn.Parameter]
    steps: int
    peak: float
    end: float
    folder: Path | None
    warmup: int = 100
    clip: float = 1.0
    decay: float = 0.01
    rates: Mapping[nn.Parameter, float] = field(default_factory=dict)
    turned: Collection[nn.Parameter] = frozenset()
    restarts: Sequence[int] = ()
    last: float = 1.0
    say: Callable[[str], None] = print
    each: Callable[[int, dict[str, float]], None] | None = None

    def run(self, losses: Callable[[int], dict[str, Tensor]], after: Callable[[int], None] | None = None) -> None:
        """Call `losses(step)`, which gives "loss" and more scalars to show, until `steps` are done.

        `losses` must depend on the step alone (and on torch's global generator, which is restored).
        """
        optimizers = optimizers_for(self.trained, self.peak, self.turned, self.rates, self.decay)
        first, spent = self._resume(optimizers)
        saved = shown = time.time()
        began, seen = time.time(), 0
        sums: dict[str, float] = {}
        for step in range(first, self.steps):
            values = losses(step)
            for p in self.trained:
                p.grad = None
            values["loss"].backward()
            nn.utils.clip_grad_norm_(self.trained, self.clip)
            peak = self.peak * (self.last if self.restarts and step >= max(self.restarts) else 1)
            rate = cosine(*round_of(step, self.steps, self.restarts), peak, self.end, self.warmup)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["rate"] * rate
                optimizer.step()
            if after is not None:
                after(step)
            seen += 1
            floats = {key: float(value.detach()) for key, value in values.items()}
            for key, value in floats.items():
                sums[key] = sums.get(key, 0.0) + value
            if self.each is not None:
                self.each(step, floats)
            now = time.time()
            if now - shown > REPORT_SECONDS or step + 1 == self.steps:
                left = (now - began) / (step + 1 - first) * (self.steps - step - 1)
                means = "  ".join(f"{key} {total / seen:.4f}" for key, total in sums.items())
                self.say(f"{self.name}  step {step + 1}/{self.steps}  {means}  {left / 60:.1f} min left")
                shown, seen, sums = now, 0, {}
            if now - saved > SAVE_SECONDS or step + 1 == self.steps:
                self._save(optimizers, step + 1, spent + now - began)
                saved = now

    @property
    def state_file(self) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.name}.pt"

    def _save(self, optimizers: list[torch.optim.Optimizer], step: int, seconds: float) -> None:
        if self.state_file is None:
            return
        state = dict(step=step, seconds=seconds, model=self.modules.state_dict(),
                     optimizers=[one.state_dict() for one in optimizers], random=torch.get_rng_state())
        with atomic_write(self.state_file) as temporary:
            torch.save(state, temporary)

    def _resume(self, optimizers: list[torch.optim.Optimizer]) -> tuple[int, float]:
        if self.state_file is None or not self.state_file.exists():
            return 0, 0.0
        state = torch.load(self.state_file, weights_only=True, map_location="cpu")
        if len(state.get("optimizers", ())) != len(optimizers):
            raise ValueError(f"{self.state_file} was left by a training with other optimizers: delete it, and "
                             f"{self.name} starts anew.")
        self.modules.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["random"])
        self.say(f"{self.name}  goes on at step {state['step']}/{self.steps}")
        return state["step"], state["seconds"]


class Made(IterableDataset):
    """What `make(worker)` yields, in whichever process asks; `worker` counts from 0."""

    def __init__(self, make: Callable[[int], Iterator[Any]]) -> None:
        super().__init__()
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        return self.make(0 if info is None else info.id)


def in_workers(make: Callable[[int], Iterator[Any]], device: torch.device) -> Iterator[Any]:
    """Batches for a device: on a CPU made one by one between the steps, for a GPU ahead of them in other processes.

    A GPU is done with a batch before Python has drawn the next. With several processes the order is no longer that of
    one, and neither are the batches; each process draws on its own.

    make: gives the batches of one process, whose random numbers `random` and torch draw
    """
    if device.type == "cpu":
        return make(0)
    workers = max(1, min(WORKERS, (os.cpu_count() or 1) // 2))
    return iter(DataLoader(Made(make), batch_size=None, num_workers=workers, prefetch_factor=4))


# --- the codec ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodecPlan:
    """One stage of LiteSNAC's training.

    kept:     share of the crops of which the decoder hears one, two and all three levels: what the coarse ones alone
              can say, they then do say. Source: quantizer dropout, SoundStream, arXiv 2107.03312, section III-D
    wrong:    share of each level's entries that are replaced by others: a language model will not choose all of
              them as the encoder does, and a wrong detail should not cost a word
    hearing:  how much it counts that Whisper's features can be told from one level, and from two, see
              `WhisperLikeness`; 0: nothing
    trains:   parts of the codec that may change. With the decoder alone, codes mean what they meant before, so that
              a language model that has learnt them need not learn anew
    starts:   share of the crops that begin where a sentence does
    alike:    how much it counts that Whisper hears the same, see `SoundsAlike`
    drawn:    share of the crops whose codes are those that the voice draws, see `by_ear.train_decoder`
    written:  how much it counts that Whisper writes down the same, see `WrittenAlike`. Then whole sentences take the
              place of crops, of at most `seconds`
    voice:    the voice learns too, at this many times the learning rate, see `by_ear.train_voice`; 0: it does not
    alone:    it draws its codes with no past but its own, and only what is written down is compared
    """

    name: str = "codec"
    steps: int = 4500
    batch: int = 16
    seconds: float = 1.0                     # length of one crop
    peak: float = 2e-3
    end: float = 2e-5
    reseed_until: float = 0.6                # share of the training in which unused codes are moved
    reseed_every: int = 10
    kept: tuple[float, float, float] = (0.0, 0.0, 1.0)
    wrong: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hearing: float = 0.0
    trains: tuple[str, ...] = ("encoder", "quantizer", "decoder")
    starts: float = 0.0
    alike: float = 0.0
    drawn: float = 0.0
    written: float = 0.0
    voice: float = 0.0
    alone: bool = False


# First the sound. Then the words go where a language model finds them: without that most of what tells one word from
# another is in the finest level, which is the hardest to say.
CODEC_PLANS = (
    CodecPlan(),
    CodecPlan("codec_words", 2000, peak=1e-3, kept=(0.2, 0.3, 0.5), wrong=(0.0, 0.05, 0.15), hearing=1.0),
    CodecPlan("codec_polish", 1500, peak=7e-4, kept=(0.2, 0.25, 0.55), wrong=(0.0, 0.05, 0.15), hearing=2.0,
              reseed_until=0.3),
    # Last the decoder alone, on whole codes: it had learnt to do without the fine ones. Where a sentence begins no past
    # helps it, and a crop rarely begins there. Then also for what Whisper makes of the sound.
    CodecPlan("codec_decoder", 1500, peak=7e-4, reseed_until=0.0, trains=("decoder",), starts=0.25),
    CodecPlan("codec_heard", 1600, 8, 1.5, peak=4e-4, reseed_until=0.0, trains=("decoder",), starts=0.25, alike=1.0),
)


def crops(waves: list[Tensor], seconds: float, batch: int, starts: float = 0.0) -> Iterator[Tensor]:
    """Random pieces of speech, longer waves more often: (B, 1, N) float32, gain 0.5 to 1.2.

    starts: share that begins just where a wave does, see `CodecPlan`
    """
    length = int(seconds * CODEC_RATE)
    weights = torch.tensor([float(len(wave)) for wave in waves])
    while True:
        rows = []
        for index in torch.multinomial(weights, batch, replacement=True).tolist():
            wave = waves[index]
            start = int(torch.randint(-length // 4, max(1, len(wave) - length * 3 // 4), ()))
            if starts and torch.rand(()) < starts:
                start = 0
            row = torch.zeros(length)
            piece = wave[max(0, start) : max(0, start + length)].float() / 32768
            row[max(0, -start) : max(0, -start) + len(piece)] = piece
            rows.append(row)
        gain = torch.empty(batch, 1).uniform_(0.5, 1.2)
        yield (torch.stack(rows) * gain).unsqueeze(1)


def train_codec(codec: LiteSNAC, waves: list[Tensor], folder: Path, plan: CodecPlan = CODEC_PLANS[0],
                say: Callable[[str], None] = print, ears: Ears | None = None) -> None:
    """Train the codec to rebuild speech, by one plan.

    waves: int16 (N,) at 24 kHz;  ears: wanted by plans with `hearing` or `alike`, on the codec's device
    """
    torch.manual_seed(0)
    device = codec.quantizer.quantizers[0].codebook.weight.device
    batches = in_workers(lambda _: crops(waves, plan.seconds, plan.batch, plan.starts), device)
    likeness = None
    if plan.hearing:
        assert ears is not None, "a plan with `hearing` needs Whisper's ears"
        likeness = WhisperLikeness(codec.quantizer.quantizers[0].in_proj.in_channels, ears).to(device)
    alike = None
    if plan.alike:
        assert ears is not None, "a plan with `alike` needs Whisper's ears"
        alike = SoundsAlike(ears)
    modules = codec if likeness is None else nn.ModuleDict(dict(codec=codec, likeness=likeness))
    last: dict[str, Any] = {}

    def losses(step: int) -> dict[str, Tensor]:
        wav = next(batches).to(device)
        kept = 1 + torch.multinomial(torch.tensor(plan.kept), plan.batch, replacement=True).to(device)
        with mixed_precision(device.type):
            reconstruction, quantized = codec(wav, kept, plan.wrong)
        last["quantized"] = quantized
        out = codec_loss(reconstruction, wav, quantized)
        if likeness is not None:
            out["hearing"] = likeness(wav, quantized)
            out["loss"] = out["loss"] + plan.hearing * out["hearing"]
        if alike is not None:
            out["alike"] = alike(reconstruction, wav)
            out["loss"] = out["loss"] + plan.alike * out["alike"]
        return out

    def after(step: int) -> None:
        if step % plan.reseed_every == 0 and step < plan.reseed_until * plan.steps:
            codec.reseed_unused_codes(last["quantized"])

    with only_training(codec, plan.name, plan.trains):
        trained = [p for p in modules.parameters() if p.requires_grad]
        Loop(plan.name, modules, trained, plan.steps, plan.peak, plan.end, folder, say=say).run(losses, after)


@contextmanager
def only_training(codec: LiteSNAC, plan: str, trains: Sequence[str]) -> Iterator[None]:
    """Parts of the codec that a plan does not train are frozen, and looked at afterwards: none may have changed."""
    for name, part in codec.named_children():
        part.requires_grad_(name in trains)
    held = {name: p.detach().clone() for name, p in codec.named_parameters() if not p.requires_grad}
    codec.train()
    yield
    for name, before in held.items():
        if not torch.equal(before, codec.get_parameter(name)):
            raise AssertionError(f"{plan} changed {name}, which is frozen in it: this is a bug of the loop.")
    codec.requires_grad_(True).eval()


# --- the language model: phases as data ---------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """One row of the phase table.

    trains:  parts of OmniModel that may change; everything else is frozen, and checked
    mixture: what a batch is made of, by share: the five tasks, and "copy" (read the text question
             back under the `asr` id, so that a frozen LM can transcribe in phase 1), "slow copy" and
             "slow T1T2" (the same from text at the pace of speech, see `data.lay_out`), "pseudo copy",
             "pseudo T1T2" and "pseudo A1A2" (the same, and answers aloud, as if the question were heard, see
             reading.py)
    steps_per_batch: positions in a batch, padding included
    rows:    whose loss counts; "audio" alone where the LM is frozen and has not learnt to fall silent; none
             where the ears learn from CTC alone, many times cheaper
    guide:   how much the guided attention of the TTS adapter counts (guide.py); 0 without such an adapter
    copying: how much the guided copying of the language model counts (guide.py)
    noise:   share of the codes read back from the voice's own past that are others: see `with_noise`
    ctc:     how much the CTC loss of the ASR adapter counts (guide.py)
    teachers: earlier phases whose ears, averaged, show the ASR adapter in training what they hear: see `taught_by`
    masked:  share of the clips of which the ears get less than Whisper heard: see `masked`
    typed:   how much it counts that a question is thought of as if it were typed: see `as_typed`
    misheard: share of the written questions that are read with faults: see `as_misheard`
    strange: share of the answers aloud that are given to any other question: who learns to speak shall say what the
             text row says, not what was asked. Only where the loss of the text does not count
    unread:  share of the answers aloud of which the TTS adapter may not read the text row, see `without_text`
    restarts: steps at which the schedule begins anew, see `round_of`
    last:    what the last of these rounds gets of the learning rate
    streams: how much a code of each audio stream counts: see `omni_loss`
    rates:   what some parts get of the learning rate: little for the embeddings of words, at which the ears point
    muon:    parts whose matrices Muon updates, see `optimizers_for`
    """

    name: str
    trains: tuple[str, ...]
    mixture: dict[str, float] = field(hash=False)
    steps: int
    peak: float
    end: float
    steps_per_batch: int = 2048
    rows: tuple[str, ...] = ("text", "audio")
    guide: float = 0.0
    copying: float = 0.0
    noise: float = 0.0
    ctc: float = 0.0
    teachers: tuple[str, ...] = ()
    masked: float = 0.0
    typed: float = 0.0
    misheard: float = 0.0
    strange: float = 0.0
    unread: float = 0.0
    restarts: tuple[int, ...] = ()
    last: float = 1.0
    streams: tuple[float, ...] = ()
    rates: dict[str, float] = field(default_factory=dict, hash=False)
    muon: tuple[str, ...] = ()


# The three levels of a frame count alike, though they have one, two and four codes: the coarse ones carry the words.
# Source of the idea: Moshi, arXiv 2410.00037, section 3.4.4, where the first level counts a hundred times.
LEVELS_ALIKE = tuple(LEVEL_STRIDES[level] for level, _ in FRAME_ORDER)      # 4, 2, 1, 1, 2, 1, 1
WORDS_FIRST = (8, *LEVELS_ALIKE[1:])         # the coarse code, which tells the words, as much as all others together

LANGUAGE_MODEL = ("text_embed", "text_head", "trunk")
EVERYTHING = (*LANGUAGE_MODEL, "audio_embed", "asr_adapter", "tts_adapter")

# arXiv 2408.16725, table of phases; "text" stands for the pretraining that Qwen2-0.5B comes with. The paper's last
# stage goes over everything once more; here only parts of the model learn on, with all else frozen, so that a step
# costs little. "ears" and "merged" are for spoken questions: typed ones are answered nearly without a fault after
# phase 3. "reading" is for what those ears mishear. "final" is for the voice, which has most left to learn.
LITE_PHASES = (
    Phase("text", LANGUAGE_MODEL, {"T1T2": 0.3, "copy": 0.2, "slow T1T2": 0.15, "slow copy": 0.35}, 3000, 5e-3, 2e-5,
          copying=1.0, misheard=0.2, rates={"text_embed": 0.4}, muon=("trunk",)),
    Phase("phase1a", ("asr_adapter",), {"A1T1": 1.0}, 1600, 2e-3, 4e-6, 8192, rows=(), ctc=1.0,
          muon=("asr_adapter",)),
    Phase("phase1b", ("audio_embed", "tts_adapter"), {"T1A2": 1.0}, 800, 5e-3, 5e-4, rows=("audio",), guide=1.0,
          noise=0.1, streams=LEVELS_ALIKE, rates={"audio_embed": 0.4}, muon=("tts_adapter",)),
    Phase("phase2", LANGUAGE_MODEL, {"A1T1": 0.4, "A1T2": 0.18, "T1T2": 0.25, "slow T1T2": 0.07, "copy": 0.03,
                                     "slow copy": 0.07}, 2500, 2e-3, 2e-5, copying=0.5,
          misheard=0.3, rates={"text_embed": 0.02}, muon=("trunk",)),
    Phase("phase3", EVERYTHING, {"A1A2": 0.12, "T1A2": 0.28, "A1T1": 0.20, "A1T2": 0.10, "T1T2": 0.22,
                                 "slow T1T2": 0.02, "copy": 0.02, "slow copy": 0.04}, 4000, 4e-3, 1e-5, guide=0.3,
          copying=0.5, noise=0.05, ctc=1.0, misheard=0.2, streams=LEVELS_ALIKE,
          rates={"text_embed": 0.01, "audio_embed": 0.4, "trunk": 0.5, "asr_adapter": 0.1},
          muon=("trunk", "asr_adapter", "tts_adapter")),
    Phase("ears", ("asr_adapter",), {"A1T1": 1.0}, 1800, 2e-3, 4e-6, 8192, rows=(), ctc=1.0, masked=1.0,
          restarts=(1200,), muon=("asr_adapter",)),
    Phase("merged", ("asr_adapter",), {"A1T1": 1.0}, 1200, 2e-3, 4e-6, 8192, rows=(), ctc=0.3, masked=1.0,
          teachers=("phase3", "ears"), muon=("asr_adapter",)),
    Phase("reading", ("trunk",), {"pseudo T1T2": 0.45, "pseudo copy": 0.15, "pseudo A1A2": 0.1, "A1T2": 0.1,
                                  "A1T1": 0.1, "T1T2": 0.1},
          3800, 1e-3, 1e-5, 5000, rows=("text",), masked=0.6, typed=1.0, restarts=(1600, 2750), last=0.7,
          muon=("trunk",)),
    # The committed weights read every text row in the first round, `unread` began with the second; in the first two
    # each answer had one speed, and in all but the last it was said three times as often as any other sentence.
    Phase("final", ("tts_adapter",), {"T1A2": 0.75, "A1A2": 0.25}, 29_800, 4e-3, 1e-5, rows=("audio",), guide=0.3,
          noise=0.1, strange=1.0, unread=0.1, restarts=(7000, 16_000, 21_000, 29_000), last=0.5, streams=WORDS_FIRST,
          muon=("tts_adapter",)),
)

MINI_OMNI_PHASES = (
    Phase("phase1a", ("asr_adapter",), {"A1T1": 1.0}, 20_000, 1e-3, 4e-6, 192 * 400),
    Phase("phase1b", ("audio_embed",), {"T1A2": 1.0}, 20_000, 1e-3, 4e-6, 192 * 400, rows=("audio",)),
    Phase("phase2", LANGUAGE_MODEL, {"A1T1": 0.5, "T1T2": 0.5}, 30_000, 4e-4, 4e-6, 192 * 400),
    Phase("phase3", EVERYTHING, {"A1A2": 0.4, "A1T2": 0.2, "T1A2": 0.1, "A1T1": 0.15, "T1T2": 0.15}, 60_000, 4e-4,
          4e-6, 192 * 400),
    Phase("final", EVERYTHING, {"A1A2": 0.6, "A1T2": 0.2, "T1A2": 0.1, "T1T2": 0.1}, 40_000, 5e-5, 4e-6, 192 * 400),
)


@dataclass
class Corpus:
    """Everything the phases draw from, as token ids.

    written: (question, answer) pairs of text pretraining, mostly facts
    copied:  sentences to read back
    transcribed: (clip, what is said in it), also of sentences that have no answer
    heard:   (clip, question, answer, codes of the answer or None); several clips may be one question
    spoken:  (question, answer, codes)
    takes:   of answers whose words were found in their speech: the same sound at other speeds and cut into frames at
             other places, each with the end of each token's turn, in frames; what is spoken is the first
    snippets: what the ears make of the tokens, for a phase that reads as if it heard
    """

    tokenizer: Tokenizer
    written: list[tuple[tuple[int, ...], tuple[int, ...]]]
    copied: list[tuple[int, ...]]
    transcribed: Sequence[tuple[int, tuple[int, ...]]]
    heard: Sequence[tuple[int, tuple[int, ...], tuple[int, ...], Tensor | None]]
    spoken: Sequence[tuple[tuple[int, ...], tuple[int, ...], Tensor]]
    store: FeatureStore | None
    takes: Mapping[tuple[int, ...], Sequence[tuple[Tensor, Tensor | None]]] = field(default_factory=dict)
    snippets: Snippets | None = None

    def draw(self, mixture: dict[str, float], misheard: float = 0.0, strange: float = 0.0) -> Iterator[Item]:
        """Items by their share of the mixture, forever.

        misheard: share of the written questions that are read as if they were heard badly, see `as_misheard`; never
                  one whose answer repeats it
        strange:  share of the answers aloud that are given to any other question
        """
        kinds, shares = list(mixture), list(mixture.values())
        tokens = range(self.tokenizer.get_vocab_size())                     # also those that no text here has
        decks: dict[int, list[int]] = {}

        def deal(pile: Sequence[Any]) -> Any:
            """One after the other in random order, then all again."""
            deck = decks.setdefault(id(pile), [])
            if not deck:
                deck.extend(range(len(pile)))
                random.shuffle(deck)
            return pile[deck.pop()]

        while True:
            kind = random.choices(kinds, shares)[0]
            if kind in ("copy", "slow copy"):
                text = deal(self.copied)
                if random.random() < SCRAMBLED:
                    text = scramble(text, random.choice(self.copied), tokens)
                slow = kind != "copy"
                yield Item(Task.A1T1 if slow else Task.T1T2, text, text, copy=not slow, slow=slow)
            elif kind in (Task.T1T2, "slow T1T2"):
                question, answer = deal(self.written)
                if random.random() < misheard and not set(answer[:-1]) <= set(question):
                    question = as_misheard(question, tokens)
                slow = kind != Task.T1T2
                yield Item(Task.A1T2 if slow else Task.T1T2, question, answer, slow=slow)
            elif kind in ("pseudo T1T2", "pseudo copy"):
                assert self.snippets is not None, "a phase that reads as if it heard needs snippets"
                question, answer = deal(self.written)
                emission = self.snippets.place(question)
                if kind == "pseudo copy":
                    yield Item(Task.A1T1, question, question, emission=emission)
                else:
                    yield Item(Task.A1T2, question, answer, emission=emission)
            elif kind == "pseudo A1A2":
                assert self.snippets is not None, "a phase that reads as if it heard needs snippets"
                question, answer, codes = deal(self.spoken)
                codes, turns = self.take(answer, codes)
                emission = self.snippets.place(question)
                yield Item(Task.A1A2, question, answer, codes=codes, turns=turns, emission=emission)
            elif kind == Task.T1A2:
                question, answer, codes = deal(self.spoken)
                if strange and random.random() < strange:
                    question = random.choice(self.heard)[1]
                codes, turns = self.take(answer, codes)
                yield Item(Task.T1A2, question, answer, codes=codes, turns=turns)
            elif kind == Task.A1T1:
                clip, said = deal(self.transcribed)
                yield Item(Task.A1T1, said, said, clip)
            else:
                clip, question, answer, codes = deal(self.heard)
                if strange and kind == Task.A1A2 and random.random() < strange:
                    _, answer, codes = deal(self.spoken)
                codes, turns = self.take(answer, codes)
                yield Item(Task(kind), question, answer, clip, codes, turns)

    def take(self, answer: tuple[int, ...], codes: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """One way to say an answer, and when its tokens end in it, as far as known."""
        takes = self.takes.get(answer, ())
        if not takes:
            return codes, None
        return random.choice(takes)


def scramble(text: tuple[int, ...], other: tuple[int, ...], tokens: Sequence[int]) -> tuple[int, ...]:
    """A text that nobody ever wrote, to be copied: one in three each of random tokens, of the same tokens in
    another order, and of the beginning of one text with the end of another.

    A language model that copies only sentences from a list learns the list by heart, and then hears nothing
    else: without scrambled texts ours read back a third of the tokens of sentences that it had not met.
    """
    kind = random.randrange(3)
    if kind == 0:
        return tuple(random.choices(tokens, k=random.randint(2, 12)))
    if kind == 1:
        return tuple(random.sample(text, len(text)))
    return text[: random.randint(1, len(text))] + other[random.randrange(len(other)) :]


class NextToken(torch.autograd.Function):
    """Cross-entropy as `F.cross_entropy` has it, in the dtype of the logits and with one softmax for both ways.

    Over 1,500 steps x 7 streams x 1,088 ids it took 39 ms instead of 223 on one core: a third of a training step.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """logits (n, V), targets (n,) int64 with IGNORE, weights (n,) -> mean over the targets that count, float32."""
        counts = (targets != IGNORE) * (1.0 if weights is None else weights)
        index = targets.clamp(min=0)
        with torch.autocast(logits.device.type, enabled=False):
            p = logits.softmax(-1)
        said = p.gather(1, index[:, None])[:, 0].float()
        weight = counts / counts.sum()
        ctx.save_for_backward(p, index, weight)
        return -(said.clamp(min=1e-30).log() * weight).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """d loss / d logits = (p - one-hot) * weight."""
        p, index, weight = ctx.saved_tensors
        p[torch.arange(len(p), device=p.device), index] -= 1                   # in place: there is one backward pass
        return p.mul_((weight * grads[0])[:, None].to(p.dtype)), None, None


def next_token_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of (n, V) logits and (n,) targets, of which IGNORE ones do not count.

    weights: (n,) how much each target counts; None: all alike
    """
    return cast(Tensor, NextToken.apply(logits, targets, weights))


def omni_loss(model: OmniModel, heard: Heard, rows: tuple[str, ...] = ("text", "audio"), guide: float = 0.0,
              sizes: Tensor | None = None, ctc: float = 0.0, copying: float = 0.0,
              streams: Sequence[float] = (), unread: float = 0.0, shown: Tensor | None = None, typed: float = 0.0,
              known: nn.Module | None = None) -> dict[str, Tensor]:
    """Next-token cross-entropy of the text row plus the mean over the audio streams.

    rows:  which of the two count in "loss"; both are reported. With none of them there is only the CTC loss,
           for which the language model need not run
    guide: what the guided attention adds to "loss", in parts of itself; `sizes` as in guide.py
    ctc, copying: what the CTC loss of the ASR adapter and the guided copying add, likewise
    streams: how much a code of each audio stream counts in the mean over them; (): all alike, as in the paper
    unread: share of the sequences whose text row the TTS adapter does not get to read, see `without_text`
    shown: (B, n, D) what the teachers of the ears heard; it counts only where no row does
    typed, known: how much `as_typed` counts, and the trunk as it was before; None where nothing is compared

    Heads are computed only where a target stands; the TTS blocks only on the rows that speak.
    """
    device, here = model.bands.device, heard.batch
    features, lengths = (None if one is None else one.to(device) for one in (heard.features, heard.lengths))
    if not rows:                               # the ears alone: neither soft words nor the language model are needed
        assert features is not None and lengths is not None
        positions = -(-lengths // model.config.ear.stack)
        adapted = model.asr_adapter(features, positions)
        alone = hearing_loss(model, adapted, positions, heard.said)
        if shown is None:
            return {"loss": ctc * alone, "ctc": alone}
        taught = teaching_loss(model, adapted, positions, shown)
        return {"loss": ctc * alone + taught, "ctc": alone, "taught": taught}
    batch = here.to(device)
    with watch(model.asr_adapter) as passes:
        x = render(model, model.embed(batch.text_in, batch.audio_in, features, lengths), heard.emissions)
    hint: dict[str, Tensor] = {}
    heard_at: Sequence[Tensor | None] = ()
    if passes:
        assert lengths is not None
        positions, adapted = -(-lengths // model.config.ear.stack), passes[0][1]
        if ctc:
            hint["ctc"] = hearing_loss(model, adapted, positions, heard.said)
        if copying:
            with torch.no_grad():
                heard_at = spoken_when(model.likeness(adapted)[0].cpu(), positions.cpu(), heard.said)
    blocks = copying_blocks(model) if copying else []
    with ExitStack() as stack:
        inputs = [stack.enter_context(watch(block)) for block in blocks]
        hidden = model.run(x)
    if blocks:
        where = expected_copying(here, model.config.vocab, heard_at)
        losses = [heads_loss(block, seen[0][0], model.trunk.rotary_emb, *(one.to(device) for one in steps))
                  for block, seen, steps in zip(blocks, inputs, where, strict=True)]
        hint["copying"] = torch.stack(losses).sum()
    # What counts is looked up where the batch was made: a GPU that is asked has first to do all it was told before.
    says = here.text_target != IGNORE                                      # (B, S)
    out: dict[str, Tensor] = {}
    thought = hidden[says]
    words = model.text_logits(thought)
    if known is not None and heard.typed is not None:
        hint["typed"] = as_typed(model, known, heard.typed.to(device), thought, words)
    out["text"] = next_token_loss(words, batch.text_target[says])
    loss = out["text"] if "text" in rows else torch.zeros(())
    speaking = heard.speaks                                                # (B,)
    if speaking.any():
        talk = here.pick(speaking)
        targets = talk.audio_target.transpose(1, 2)                        # (b, S, 7)
        sounds = (targets != IGNORE).any(-1)                               # (b, S)
        with watch(guided_block(model)) as seen:
            text_ids = without_text(talk.text_in, model.config.vocab, unread).to(device)
            spoken = model.speak(hidden[speaking], text_ids=text_ids)
            logits = model.audio_head(spoken[sounds])                          # (n, 7, V_audio)
        weights = torch.tensor(streams, device=device).repeat(len(logits)) if streams else None
        out["audio"] = next_token_loss(logits.flatten(0, 1), targets[sounds].flatten().to(device), weights)
        loss = loss + out["audio"] if "audio" in rows else loss
        if guide:
            assert sizes is not None and model.tts_adapter is not None
            looks = heard.looks or expected_looks(heard, model.config.vocab, sizes)
            block = cast(Any, guided_block(model))
            out["guide"] = heads_loss(block, seen[0][0], model.tts_adapter.rotary, *(one.to(device) for one in looks))
            loss = loss + guide * out["guide"]
    for name, share in (("copying", copying), ("ctc", ctc), ("typed", typed)):
        if name in hint:
            loss = loss + share * hint[name]
    return {"loss": loss, **out, **hint}


def as_typed(model: OmniModel, known: nn.Module, typed: Batch, hidden: Tensor, logits: Tensor) -> Tensor:
    """How far from what was thought of the same question typed: of each target the divergence of the guesses, and how
    far apart the outputs are, on which the voice stands, in parts of their size.

    known: the trunk before it learnt;  typed: see `data.typed_too`
    hidden, logits: (n, D), (n, V_text) at the n targets of the text row, of which `typed` has as many, in that order
    returns: () float32.  Source: knowledge distillation, arXiv 1503.02531
    """
    with torch.no_grad():
        x = model.embed(typed.text_in, typed.audio_in)
        wanted = known(inputs_embeds=x, use_cache=False).last_hidden_state[typed.text_target != IGNORE]
        guesses = model.text_logits(wanted).float().log_softmax(-1)
    apart = (hidden - wanted).float().square().mean() / wanted.float().square().mean()
    return F.kl_div(logits.float().log_softmax(-1), guesses, reduction="batchmean", log_target=True) + apart


def expected_looks(heard: Heard, vocab: Vocab, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """`expected_attention` for the examples of a batch that speak."""
    speaking = heard.speaks
    turns = [one for one, speaks in zip(heard.turns, speaking.tolist(), strict=False) if speaks]
    return expected_attention(heard.batch.pick(speaking), vocab, sizes, turns)


def as_misheard(question: Sequence[int], tokens: Sequence[int], share: float = 0.12) -> tuple[int, ...]:
    """A written question with the faults that ears make: a share of its tokens lost, doubled or taken for others.

    A fact that is known from text alone is also asked by voice, and then hardly ever understood to the last token:
    the language model has to be used to that where it learns the fact.
    """
    out: list[int] = []
    for token in question:
        fault = random.random() / share
        if fault < 0.3:                      # lost
            continue
        out.append(random.choice(tokens) if fault < 0.7 else token)
        if 0.7 <= fault < 1:                 # doubled
            out.append(token)
    return tuple(out) or tuple(question)


def with_noise(heard: Heard, vocab: Vocab, share: float) -> Heard:
    """Replace a share of the codes that the model reads (never those that it learns to say) by any others.

    A voice that knows its own past without a fault learns its answers by heart, code after code, and
    is lost after the first fault of its own. So it has to look at the text, and to find its way back. `share` is the
    mean: each sequence has its own, from none to twice as much.
    """
    if not share:
        return heard
    codes = heard.batch.audio_in
    own = 2 * share * torch.rand(len(codes), 1, 1)
    wrong = (codes < vocab.codebook) & (torch.rand(codes.shape) < own)
    others = torch.where(wrong, torch.randint(vocab.codebook, codes.shape), codes)
    return replace(heard, batch=replace(heard.batch, audio_in=others))


def masked(features: Tensor, lengths: Tensor, share: float) -> Tensor:
    """Blur a share of the clips: noise of up to `BLUR` on every feature, up to `MASKS` gaps, up to `DEAF` of the
    dimensions silent for the whole clip.

    A few dozen synthetic voices are soon known by heart, and another voice is then heard badly. Who gets on without a
    part of what Whisper heard relies less on what only these voices have. Source: SpecAugment, arXiv 1904.08779, which
    masks stretches of time and bands of a spectrogram; here it is Whisper's features.

    features: (B, T, D), zeros after each clip's length (B,); returns: (B, T, D), again zeros there
    """
    if not share:
        return features
    B, T, D = features.shape
    inside = (torch.arange(T) < lengths[:, None])[..., None]               # (B, T, 1)
    known = features[inside[..., 0]]                                       # (n, D)
    mean, spread = known.mean(0), known.std(0)
    x = features + BLUR * torch.rand(B, 1, 1) * spread * torch.randn(B, T, D)
    for _ in range(MASKS):
        first = torch.rand(B, 1) * lengths[:, None]
        gap = (torch.arange(T) >= first) & (torch.arange(T) < first + LONGEST_GAP * torch.rand(B, 1))
        x = torch.where(gap[..., None], mean, x)
    x = torch.where(torch.rand(B, 1, D) < DEAF * torch.rand(B, 1, 1), mean, x)
    return torch.where(inside & (torch.rand(B, 1, 1) < share), x, features)


def without_text(text_ids: Tensor, vocab: Vocab, share: float) -> Tensor:
    """Hide the whole text row of a share of the sequences: (B, S) -> (B, S).

    What the TTS adapter would say without reading is what `Sampling.guidance` leads away from.
    """
    if not share:
        return text_ids
    return text_ids.masked_fill(torch.rand(len(text_ids), 1) < share, vocab.pad_t)


@torch.no_grad()
def start_from_codebooks(model: OmniModel, codec: LiteSNAC, scale: float = 1.0, kept: float = 0.3) -> None:
    """Let the embeddings and the heads of codes that sound alike begin alike.

    The codec's entries have a place in a space of few dimensions, where it looks for the nearest. Each stream gets
    that space in a random direction of the model's, once to read codes and once to say them. Then what is learnt
    of one code holds for its neighbours too: with 1,024 codes for each stream and some hundred examples of each,
    the loss falls about twice as fast.

    scale: length of an embedding; kept: how much of the random start stays, which tells neighbours apart
    """
    assert model.tts_adapter is not None, "a model without a TTS adapter says codes by their embeddings"
    vocab, D = model.config.vocab, model.audio_embed.embedding_dim
    for q, first in enumerate(model.bands[:, 0].tolist()):
        entries = nn.functional.normalize(codec.quantizer.quantizers[FRAME_ORDER[q][0]].codebook.weight, dim=1)
        for weight, start in ((model.audio_embed.weight, first), (model.tts_adapter.head.weight, q * vocab.audio_size)):
            directions = torch.linalg.qr(torch.randn(D, entries.shape[1]))[0].T        # (C, D), orthonormal rows
            codes = weight[start : start + vocab.codebook]
            codes.copy_(kept * codes + scale * entries @ directions)


@torch.no_grad()
def start_from_spelling(model: OmniModel, tokenizer: Tokenizer, scale: float = 0.5, letters: int = 10) -> None:
    """Let the words that the TTS adapter reads begin alike where they are spelled alike.

    To the language model a token is a number; how it sounds would have to be learnt for each one by itself. Here each
    begins as the sum of random directions, one for every letter, pair and three of letters of it, and one more for
    each with its place among the first `letters`. What is learnt of "station" then holds for "stations" too.

    scale: length of an embedding, in parts of the square root of its width
    """
    assert model.tts_adapter is not None and model.tts_adapter.text is not None, "only a voice that reads the text"
    weight = model.tts_adapter.text.weight
    directions: dict[tuple[str, int], Tensor] = {}

    def direction(letters_at: tuple[str, int]) -> Tensor:
        if letters_at not in directions:
            directions[letters_at] = torch.randn(weight.shape[1])
        return directions[letters_at]

    for i in range(min(tokenizer.get_vocab_size(), model.config.vocab.text_base)):
        name = (tokenizer.id_to_token(i) or "").lower()
        parts = [(name[at : at + n], at) for n in (1, 2, 3) for at in range(len(name) - n + 1)]
        placed = [direction((part, at if at < letters else -1)) + direction((part, -1)) for part, at in parts]
        if placed:
            weight[i] = scale * math.sqrt(weight.shape[1]) * nn.functional.normalize(torch.stack(placed).sum(0), dim=0)


def guided_block(model: OmniModel) -> nn.Module | None:
    """The second block of the TTS adapter, some of whose heads are guided; None without an adapter.

    The first finds out how far the speech has come; those after the second turn the word that it found into codes.
    """
    blocks = [] if model.tts_adapter is None else list(model.tts_adapter.blocks)
    return blocks[:2][-1] if blocks else None


def copying_blocks(model: OmniModel) -> list[Any]:
    """The block of the language model that finds the token to say next, and an earlier one whose heads find the
    token before each: of six blocks the fourth and the second."""
    layers = cast(Any, model.trunk).layers
    return [layers[len(layers) // 2], layers[len(layers) // 4]]


@contextmanager
def compiled(model: OmniModel, steps: int) -> Iterator[None]:
    """Run the transformer blocks as compiled code where a C++ compiler is there and the steps are many.

    At this width much of a step goes into norms, rotations and softmaxes, which torch.compile joins: on two CPU
    cores about a third of it is saved. The results are the same up to rounding.
    """
    blocks = [*cast(Any, model.trunk).layers, *(model.tts_adapter.blocks if model.tts_adapter is not None else ())]
    if model.bands.device.type != "cpu" or steps < COMPILE_STEPS or shutil.which(os.environ.get("CXX", "g++")) is None:
        yield
        return
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=True)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def watch(module: nn.Module | None) -> Iterator[list[tuple[Any, Any]]]:
    """(first input, output) of every call of a module while the context lasts."""
    seen: list[tuple[Any, Any]] = []
    if module is None:
        yield seen
        return
    handle = module.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    try:
        yield seen
    finally:
        handle.remove()


def freeze(model: OmniModel, phase: Phase) -> list[nn.Parameter]:
    """Let gradients into the phase's parts only; give those parameters."""
    for name, part in model.named_children():
        part.requires_grad_(name in phase.trains)
    return [p for p in model.parameters() if p.requires_grad]


def train_phase(model: OmniModel, phase: Phase, corpus: Corpus, folder: Path | None = None,
                say: Callable[[str], None] = print, warmup: int = 100,
                each: Callable[[int, dict[str, float]], None] | None = None, seed: int = 0,
                teachers: Sequence[nn.Module] = ()) -> None:
    """Run one phase and make sure that nothing changed but the parts it trains.

    The model stays on the device it is on.

    folder, each: see `Loop`;  warmup: steps in which the learning rate rises;  seed: of what is drawn
    teachers: ASR adapters, whose mean output on the whole features the one in training also learns from
    """
    torch.manual_seed(seed)
    random.seed(f"{phase.name} {seed}")
    trained = freeze(model, phase)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    silence = hold_silence(model) if "text_embed" not in phase.trains else None
    vocab, stack, device = model.config.vocab, model.config.ear.stack, model.bands.device
    sizes = byte_lengths(corpus.tokenizer, vocab) if phase.guide else None
    known = copy.deepcopy(model.trunk).requires_grad_(False).eval() if phase.typed else None
    if corpus.snippets is None and any(kind.startswith("pseudo") for kind in phase.mixture):
        corpus = replace(corpus, snippets=collect(model, heard_anew(corpus, phase.masked, device)))

    def drawn(worker: int) -> Iterator[Heard]:
        if worker:                           # the first one, or the only one, goes on from the seed above
            random.seed(f"{phase.name} {seed} {worker}")
        items = corpus.draw(phase.mixture, phase.misheard, phase.strange)
        for heard in batches(items, vocab, stack, corpus.store, phase.steps_per_batch, typed=phase.typed > 0):
            if sizes is not None:
                heard = replace(heard, looks=expected_looks(heard, vocab, sizes), turns=())
            yield heard

    stream = in_workers(drawn, device)
    model.train()

    def losses(step: int) -> dict[str, Tensor]:
        heard, shown = with_noise(next(stream), vocab, phase.noise), None
        if heard.features is not None and heard.lengths is not None:
            if teachers:
                positions = -(-heard.lengths // stack)
                shown = taught_by(teachers, heard.features.to(device), positions.to(device))
            heard = replace(heard, features=masked(heard.features, heard.lengths, phase.masked))
        # Sequences are short: on a CPU plain attention is a fifth faster than the fused one, backward above all.
        attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
        with mixed_precision(device.type), attention:
            return omni_loss(model, heard, phase.rows, phase.guide, sizes, phase.ctc, phase.copying,
                             phase.streams, phase.unread, shown, phase.typed, known)

    rates = {p: rate for name, rate in phase.rates.items() for p in model.get_submodule(name).parameters()}
    loop = Loop(phase.name, model, trained, phase.steps, phase.peak, phase.end, folder, warmup, decay=0.0,
                rates=rates, turned=inner_matrices(model, phase.muon), restarts=phase.restarts, last=phase.last,
                say=say, each=each)
    with compiled(model, phase.steps):
        loop.run(losses)
    if silence is not None:
        silence.remove()
    model.eval()
    for name, before in frozen.items():
        if not torch.equal(before, model.get_parameter(name)):
            raise AssertionError(f"{phase.name} changed {name}, which is frozen in it: this is a bug of the loop.")


def heard_anew(corpus: Corpus, share: float, device: torch.device, group: int = 64
               ) -> Iterator[tuple[Tensor, Tensor, list[tuple[int, ...]]]]:
    """Up to `SNIPPET_CLIPS` of the clips for `reading.collect`, a share of them masked: see `masked`.

    yields: features (B, T, D_ear), zeros after each clip's end, lengths (B,), and the tokens of each
    """
    assert corpus.store is not None, "snippets are cut from clips: the corpus needs its features"
    said = dict(corpus.transcribed)
    chosen = random.sample(sorted(said), min(len(said), SNIPPET_CLIPS))
    chosen.sort(key=corpus.store.length)                                   # groups of like length
    for first in range(0, len(chosen), group):
        some = chosen[first : first + group]
        clips = [corpus.store[clip].float() for clip in some]
        lengths = torch.tensor([len(clip) for clip in clips])
        features = masked(nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths, share)
        yield features.to(device), lengths.to(device), [said[clip] for clip in some]


@torch.no_grad()
def taught_by(teachers: Sequence[nn.Module], features: Tensor, positions: Tensor) -> Tensor:
    """The mean of what some ASR adapters make of a batch's features, (B, n, D).

    Adapters of different trainings mishear different words, and so their mean mishears fewer than each: what is too
    dear to run can be taught to one. Source: distillation of an ensemble, arXiv 1503.02531
    """
    with mixed_precision(features.device.type):
        return torch.stack([one(features, positions).float() for one in teachers]).mean(0)


def inner_matrices(model: OmniModel, parts: Iterable[str]) -> set[nn.Parameter]:
    """The matrices between layers of some parts: all but embeddings and heads, whose rows are tokens and codes."""
    heads = {model.text_head, model.tts_adapter.head if model.tts_adapter is not None else None}
    return {cast(nn.Parameter, m.weight) for name in parts for m in model.get_submodule(name).modules()
            if isinstance(m, nn.Linear) and m not in heads}


def hold_silence(model: OmniModel) -> Any:
    """Keep the embeddings of pad_a: they are in every step that reads or writes text.

    A phase that freezes the language model but trains audio embeddings would otherwise move the
    text path with them.
    """
    vocab = model.config.vocab
    rows = model.bands.flatten() + vocab.pad_a

    def hold(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[rows] = 0
        return gradient

    weight = model.audio_embed.weight
    return weight.register_hook(hold) if weight.requires_grad else _Nothing()


class _Nothing:
    def remove(self) -> None: ...


# --- preparing what the phases need ---------------------------------------------------------------


def hear_all(ears: Ears, rows: Sequence[Row], augmented: float = 0.6, seed: int = 0, group: int = 512,
             say: Callable[[str], None] = print) -> Iterator[tuple[Tensor, Tensor]]:
    """Features of every row's question, clip i of row i; see `hear_groups`."""
    waves = [row.question_wav for row in rows if row.question_wav is not None]
    assert len(waves) == len(rows), "every row needs its question as sound"
    groups = (waves[first : first + group] for first in range(0, len(waves), group))
    return hear_groups(ears, groups, len(waves), augmented, seed, say)


def hear_groups(ears: Ears, groups: Iterable[Sequence[Tensor]], total: int, augmented: float = 0.6, seed: int = 0,
                say: Callable[[str], None] = print) -> Iterator[tuple[Tensor, Tensor]]:
    """Features of clips, group after group, so that not all of their sound need be in memory.

    groups:    each some clips, (N,) float32 at 16 kHz; a clip's babble comes from its group; total: clips in all
    augmented: share of the clips that are heard as another room and microphone would give them
    """
    rng = np.random.default_rng(seed)
    began, done = time.time(), 0
    for some in groups:
        waves = [wave.numpy() for wave in some]
        heard = [augment(wave, rng, waves) if rng.random() < augmented else wave for wave in waves]
        yield ears.features([torch.from_numpy(wave) for wave in heard], bf16=True)
        done += len(waves)
        left = (time.time() - began) / done * (total - done)
        say(f"features  {done}/{total} clips  {left / 60:.1f} min left")
