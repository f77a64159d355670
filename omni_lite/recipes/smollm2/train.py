"""Train an ASR adapter for a frozen LLM: `python -m omni_lite train --preset smollm2`.

    features  encoder features of every training clip
    adapter   phase 1a by CTC on the LLM's tokens; the LLM does not run
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from omni_lite.audio import atomic_write
from omni_lite.checkpoints import pack_int, save_safetensors
from omni_lite.data import FeatureStore, Row, read_rows
from omni_lite.evaluate import words
from omni_lite.interop.smollm2 import load_smollm2
from omni_lite.loop import Loop
from omni_lite.precision import mixed_precision
from omni_lite.recipes.lite.corpus import extras, how_often, shards, train_answers
from omni_lite.recipes.lite.stages import ANSWERS, CLIPS, make_features
from omni_lite.recipes.muon import MuonAndAdamW
from omni_lite.recipes.progress import SEED, Place, Recipe, Stage
from omni_lite.recipes.smollm2.config import SMOLLM2
from omni_lite.recipes.smollm2.listen import ADAPTER, CONFIG, Listener, config_json
from omni_lite.recipes.transforms import masked

HELD_OUT = tuple(f"{split}_{name}" for split in ("test", "dev") for name in ("facts", "voices", "both", "phrasings"))


@dataclass(frozen=True)
class ListenPlan:
    """Phase 1a of a frozen LLM.

    positions: in a batch, padding included;  masked: share of the clips to mask, see `transforms.masked`
    """

    steps: int = 1600
    peak: float = 2e-3
    end: float = 1e-6
    positions: int = 8192
    masked: float = 1.0


PLAN = ListenPlan()


@dataclass(frozen=True)
class Clip:
    """One clip of the feature store: its number, its tokens, and its number of positions."""

    number: int
    said: tuple[int, ...]
    positions: int


def smollm2_recipe(data: Path, run: Path, device: str = "cpu", plan: ListenPlan = PLAN) -> Recipe:
    """Both stages; the weights go to `run`/weights. Training runs on the CPU."""
    if device != "cpu":
        raise ValueError("--device is for lite and mini-omni: leave it out, smollm2's adapter trains on the CPU.")
    stages = (Stage("features", make_features, None, (), (*CLIPS, *ANSWERS)),
              Stage("adapter", lambda at: make_adapter(plan, at), plan, ("features",),
                    (*CLIPS, *ANSWERS, "test_*", "dev_*")))
    return Recipe("smollm2", stages, data, run, run / "weights")


def training_rows(data: Path) -> list[Row]:
    """Clip i of the feature store is row i: the questions, the sentences without an answer, the answer voice."""
    rows = read_rows(shards(data, "train") + extras(data, "heard"), sound=False)
    return rows + [Row("train", len(rows) + i, text, "") for i, text in enumerate(train_answers(data))]


def held_out(data: Path) -> set[str]:
    """The words of every held-out question, those of the test and development sets."""
    paths = [path for name in HELD_OUT for path in sorted(data.glob(f"{name}-[0-9]*.parquet"))]
    return {words(row.question) for row in read_rows(paths, sound=False)}


def clips_to_hear(listener: Listener, rows: Sequence[Row], store: FeatureStore, held: set[str]) -> list[Clip]:
    """Every clip with its tokens in the LLM's spelling, natural voices repeated, without held-out questions."""
    often = how_often([row.voice for row in rows])
    return [Clip(number, tuple(listener.ids(row.question)), listener.adapter.num_positions(store.length(number)))
            for number, row in enumerate(rows) if words(row.question) not in held for _ in range(often[number])]


def heard_tokens(tokenizer: Any, rows: Sequence[Row]) -> tuple[int, ...]:
    """Ids of all tokens in the training texts, in order."""
    texts = list({row.question for row in rows})
    return tuple(sorted({token for ids in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in ids}))


def clip_batches(clips: Sequence[Clip], positions: int, seed: str) -> Iterator[list[Clip]]:
    """Batches of clips of similar length, epoch after epoch, each in a new order that depends only on the seed.

    positions: the limit for the batch size times its longest clip, so every step costs the same
    """
    for epoch in range(1_000_000):
        rng = random.Random(f"{seed} {epoch}")
        mixed = sorted(rng.sample(clips, len(clips)), key=lambda clip: clip.positions)
        groups: list[list[Clip]] = [[]]
        for clip in mixed:
            if groups[-1] and (len(groups[-1]) + 1) * clip.positions > positions:
                groups.append([])
            groups[-1].append(clip)
        rng.shuffle(groups)
        yield from groups


def features_of(store: FeatureStore, batch: Sequence[Clip]) -> tuple[Tensor, Tensor]:
    """Features (B, T, D) float32 of the batch's clips, zero-padded, and their lengths (B,)."""
    clips = [store[clip.number].float() for clip in batch]
    return nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


def train_adapter(listener: Listener, clips: Sequence[Clip], store: FeatureStore, folder: Path,
                  plan: ListenPlan = PLAN, say: Callable[[str], None] = print) -> None:
    """Train the adapter by CTC; it uses only the LLM's embeddings."""

    def losses(batch: Sequence[Clip]) -> dict[str, Tensor]:
        features, lengths = features_of(store, batch)
        features = masked(features, lengths, plan.masked)
        with mixed_precision():
            return {"loss": listener.hearing_loss(features, lengths, [clip.said for clip in batch])}

    matrices = {cast(nn.Parameter, module.weight) for module in listener.adapter.modules()
                if isinstance(module, nn.Linear)}
    loop = Loop("adapter", listener.adapter, list(listener.adapter.parameters()), plan.steps, plan.peak, plan.end,
                folder, optimizers=MuonAndAdamW(matrices), say=say)
    listener.train()
    try:
        loop.run(lambda first: islice(clip_batches(clips, plan.positions, "words"), first, None), losses)
    finally:
        listener.eval()


def make_adapter(plan: ListenPlan, at: Place) -> list[Path]:
    """Train the adapter and save it for `Listener.load`."""
    rows = training_rows(at.data)
    lm, tokenizer = load_smollm2()
    torch.manual_seed(SEED)
    listener = Listener(lm, tokenizer, replace(SMOLLM2, words=heard_tokens(tokenizer, rows)))
    store = FeatureStore(at.run / "features.f16", listener.config.ear.width)
    if len(store) != len(rows):
        raise ValueError(f"{store.path} has {len(store)} clips, but {at.data} has {len(rows)}: delete it, it will be "
                         "made again.")
    train_adapter(listener, clips_to_hear(listener, rows, store, held_out(at.data)), store, at.work, plan, at.say)
    return save_adapter(listener, at.out)


def save_adapter(listener: Listener, out: Path) -> list[Path]:
    """Save config and adapter for `Listener.load`; returns the paths."""
    with atomic_write(out / CONFIG) as temporary:
        temporary.write_text(config_json(listener.config), encoding="utf-8")
    save_safetensors(out / ADAPTER, pack_int(listener.adapter.state_dict()))
    return [out / CONFIG, out / ADAPTER]
