"""The paper's recipe, runnable: `python -m omni_lite train --preset mini-omni --data FOLDER`.

| phase   | learns                   | frozen   | tasks                  | data                       | rate, steps  |
|---------|--------------------------|----------|------------------------|----------------------------|--------------|
| phase1a | ASR adapter              | all else | speech -> transcript   | LibriTTS, VCTK, MLS        | 1e-3, 20,000 |
| phase1b | TTS adapter, audio embed | all else | text -> read aloud     | the same, in codes         | 1e-3, 20,000 |
| phase2  | language model           | adapters | speech or text -> text | the same, and Open-Orca    | 4e-4, 30,000 |
| phase3  | everything               | nothing  | all five               | all, MOSS-002 spoken QA    | 4e-4, 60,000 |
| final   | everything               | nothing  | all five               | VoiceAssistant-400K        | 5e-5, 40,000 |

The data folder holds Parquet files with the columns of VoiceAssistant-400K (see `data.py`):
    asr-*.parquet   question_audio, its transcript as `question`, the codes of the same speech as `answer_snac`
    text-*.parquet  question and answer, without sound
    qa-*.parquet    question_audio, question, answer, answer_snac

Sources: arXiv 2408.16725, section 4.1 and its tables; gpt-omni/mini-omni issues 110, 112, 123, 128 (steps, batch).
The paper does not give the shares of the tasks in a mixture: those here are our choice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer

from omni_lite.checkpoints import save_safetensors
from omni_lite.config import MINI_OMNI, OmniConfig
from omni_lite.data import Deck, Item, Row, draw_items, load_tokenizer, read_rows, row_of
from omni_lite.folder import LAST_PHASE, WHOLE_FILE, load_over, save_config
from omni_lite.hear import Ears
from omni_lite.interop.backbone import from_backbone
from omni_lite.load import load_ears
from omni_lite.model import OmniModel
from omni_lite.recipes.progress import SEED, Place, Recipe, Stage
from omni_lite.streams import Task
from omni_lite.train import EVERYTHING, LANGUAGE_MODEL, Phase, train_phase

BACKBONE = "Qwen/Qwen2-0.5B"                 # on the Hugging Face hub
PAPER = replace(MINI_OMNI, tts_blocks=6)     # with the paper's TTS adapter, which the released weights lack
# 192 sequences of about 400 positions a step, in 8 batches of 24: a batch fits on one GPU of 80 GB.
BATCH, ACCUMULATE = 24 * 400, 8

PAPER_PHASES = (
    Phase("phase1a", ("asr_adapter",), {"A1T1": 1.0}, 20_000, 1e-3, 4e-6, BATCH, ACCUMULATE, rows=("text",)),
    Phase("phase1b", ("audio_embed", "tts_adapter"), {"T1A2": 1.0}, 20_000, 1e-3, 4e-6, BATCH, ACCUMULATE,
          rows=("audio",)),
    Phase("phase2", LANGUAGE_MODEL, {"A1T1": 0.5, "T1T2": 0.5}, 30_000, 4e-4, 4e-6, BATCH, ACCUMULATE, rows=("text",)),
    Phase("phase3", EVERYTHING, {"A1A2": 0.4, "A1T2": 0.2, "T1A2": 0.1, "A1T1": 0.15, "T1T2": 0.15}, 60_000, 4e-4, 4e-6,
          BATCH, ACCUMULATE),
    Phase("final", EVERYTHING, {"A1A2": 0.6, "A1T2": 0.2, "T1A2": 0.1, "T1T2": 0.1}, 40_000, 5e-5, 4e-6, BATCH,
          ACCUMULATE),
)
# The files that each task reads.
READS = {"A1T1": ("asr",), "T1T2": ("text",), "T1A2": ("asr", "qa"), "A1T2": ("qa",), "A1A2": ("qa",)}
KINDS = ("asr", "text", "qa")


@dataclass(frozen=True)
class Start:
    """The starting point of the phases.

    backbone: a causal language model of transformers: an id on the hub, or a folder
    like:     sizes of Whisper and the TTS adapter;  warmup: steps in which the learning rate rises
    """

    backbone: str = BACKBONE
    like: OmniConfig = PAPER
    warmup: int = 1500


def paper_recipe(data: Path, run: Path, device: str = "cpu", start: Start = Start(),
                 phases: Sequence[Phase] = PAPER_PHASES) -> Recipe:
    """All phases as stages. Each writes one file to `run`/weights; the last phase writes model.safetensors."""
    names = [phase.name for phase in phases]
    stages = [Stage("tokenizer", partial(make_tokenizer, start), start.backbone)]
    for i, phase in enumerate(phases):
        reads = tuple(f"{kind}-*.parquet" for kind in kinds_of(phase.mixture))
        make = partial(make_phase, start, phase, names[:i])
        stages.append(Stage(phase.name, make, (start, phase), ("tokenizer", *names[:i]), reads))
    return Recipe("mini-omni", stages, data, run, run / "weights", device)


def kinds_of(mixture: Mapping[str, float]) -> list[str]:
    """The kinds of files that a mixture of tasks reads."""
    return [kind for kind in KINDS if any(kind in READS[task] for task in mixture)]


def make_tokenizer(start: Start, at: Place) -> list[Path]:
    """Save the backbone's tokenizer: the model keeps its ids."""
    target = at.out / "tokenizer.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(start.backbone).backend_tokenizer.save(str(target))
    return [target]


def make_phase(start: Start, phase: Phase, before: Sequence[str], at: Place) -> list[Path]:
    """Run one phase on the backbone with the weights of the phases before it."""
    torch.manual_seed(SEED)
    model = from_backbone(start.backbone, like=start.like)
    for name in before:
        load_over(model, at.out / f"{name}.safetensors")
    ears = load_ears(start.like.ear.whisper, start.like.ear.whole_window).to(at.device)
    corpus = PaperCorpus(at.data, load_tokenizer(at.out), phase.mixture)
    at.say(f"{phase.name}: trains {', '.join(phase.trains)}; {corpus}")
    train_phase(model.to(at.device), phase, corpus.draw, HeardClips(corpus.clips, ears, bf16=True), at.work,
                warmup=min(start.warmup, phase.steps // 10), say=at.say)
    save_config(at.out, model.config)
    name = WHOLE_FILE if phase.name == LAST_PHASE else f"{phase.name}.safetensors"      # `load_assistant` reads it
    return [save_phase(at.out / name, model.cpu(), phase)]


def save_phase(path: Path, model: OmniModel, phase: Phase) -> Path:
    """Save the phase's trained parts in bfloat16; returns the path."""
    save_safetensors(path, {name: one.to(torch.bfloat16) for name, one in model.state_dict().items()
                            if name.split(".")[0] in phase.trains})
    return path


class PaperCorpus:
    """The training examples of a phase: transcripts, written pairs, spoken pairs, each in random order.

    Texts and codes are in memory; `clips` reads sound from the files on demand.
    """

    def __init__(self, data: Path, tokenizer: Tokenizer, mixture: Mapping[str, float]) -> None:
        self.mixture = mixture
        needed = kinds_of(mixture)
        found = {kind: sorted(data.glob(f"{kind}-*.parquet")) if kind in needed else [] for kind in KINDS}
        rows = {kind: read_rows(paths, sound=False) for kind, paths in found.items()}
        self.clips = ParquetClips(found["asr"] + found["qa"])

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text).ids)

        first_qa = len(rows["asr"])
        self.transcripts = Deck([(clip, ids(row.question)) for clip, row in enumerate(rows["asr"])])
        self.texts = Deck([(ids(row.question), ids(row.answer)) for row in rows["text"]])
        self.spoken = Deck([(first_qa + i, ids(row.question), ids(row.answer), row.codes)
                            for i, row in enumerate(rows["qa"])])
        aloud = [(ids(row.question), ids(row.answer), row.codes) for row in rows["qa"] if row.codes is not None]
        aloud += [(ids(row.question),) * 2 + (row.codes,) for row in rows["asr"] if row.codes is not None]
        self.aloud = Deck(aloud)

    def __str__(self) -> str:
        return f"{len(self.transcripts)} transcripts, {len(self.texts)} texts, {len(self.spoken)} spoken pairs"

    def draw(self) -> Iterator[Item]:
        """Items forever, by the phase's mixture."""
        samplers: dict[str, Callable[[], Item]] = {
            "A1T1": self.transcript, "T1T2": self.text, "T1A2": self.read_aloud,
            "A1T2": partial(self.answer, Task.A1T2), "A1A2": partial(self.answer, Task.A1A2)}
        return draw_items(self.mixture, samplers)

    def transcript(self) -> Item:
        clip, said = self.transcripts.deal()
        return Item(Task.A1T1, said, said, clip)

    def text(self) -> Item:
        question, answer = self.texts.deal()
        return Item(Task.T1T2, question, answer)

    def read_aloud(self) -> Item:
        question, answer, codes = self.aloud.deal()
        return Item(Task.T1A2, question, answer, codes=codes)

    def answer(self, task: Task) -> Item:
        clip, question, answer, codes = self.spoken.deal()
        return Item(task, question, answer, clip, codes)


class HeardClips:
    """Encoder features computed on demand, for data sets whose features do not fit on a disk.

    rows: clip i is the question of row i;  bf16: see `Ears.hear`
    """

    def __init__(self, rows: Sequence[Row], ears: Ears, bf16: bool = False) -> None:
        self.rows, self.ears, self.bf16, self.width = rows, ears, bf16, ears.width

    def length(self, clip: int) -> int:
        """T of one clip."""
        return self.ears.num_features(len(self._wave(clip)))

    def __getitem__(self, clip: int) -> Tensor:
        device = self.ears.encoder.conv1.weight.device
        return self.ears.hear(self._wave(clip).to(device), self.bf16)[0].cpu()

    def _wave(self, clip: int) -> Tensor:
        wave = self.rows[clip].question_wav
        assert wave is not None, f"row {clip} has no sound"
        return wave


class ParquetClips(Sequence[Row]):
    """Rows of many Parquet files with their sound, read on demand, one row group at a time.

    Random access is fastest with small row groups (about 16 rows).
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.places = [(path, group, row) for path in paths for group, count in enumerate(row_groups(path))
                       for row in range(count)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, clip: int) -> Row:  # type: ignore[override]
        path, group, row = self.places[clip]
        return row_of(group_of(path, group)[row], path)


def row_groups(path: Path) -> list[int]:
    """The number of rows of each row group of a file."""
    about = pq.ParquetFile(path).metadata
    return [about.row_group(group).num_rows for group in range(about.num_row_groups)]


@lru_cache(maxsize=64)
def group_of(path: Path, group: int) -> list[dict]:
    """The rows of one row group, undecoded."""
    return pq.ParquetFile(path).read_row_group(group).to_pylist()
