"""The stages of the lite recipe, which `make train-lite` runs.

    codec -> encode -> tokenizer -> text -> features -> phase1a -> takes -> phase1b -> phase2 -> phase3
    -> ears -> merged -> reading -> final

docs/recipe.md explains each stage and gives its duration.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm

from omni_lite.audio import atomic_write, to_mono_rate
from omni_lite.checkpoints import pack_int, save_safetensors
from omni_lite.config import LITE
from omni_lite.data import codes_to_text, load_tokenizer, read_rows, store_features, train_tokenizer
from omni_lite.folder import CONFIG_FILE, fill, load_model, load_over, save_config
from omni_lite.litesnac import LiteSNAC
from omni_lite.load import load_ears
from omni_lite.model import OmniModel
from omni_lite.recipes.ctc import spoken_when, turns_of
from omni_lite.recipes.features import hear_groups
from omni_lite.recipes.lite.codec import CODEC_PLANS, CodecPlan, train_codec
from omni_lite.recipes.lite.corpus import (
    corpus,
    extras,
    shards,
    spoken_answers,
    train_answers,
    training_clips,
    voice_corpus,
)
from omni_lite.recipes.lite.phases import LITE_PHASES, LitePhase
from omni_lite.recipes.lite.start import start_from_codebooks, start_from_spelling
from omni_lite.recipes.lite.takes import encode_takes
from omni_lite.recipes.lite.train import train_lite_phase
from omni_lite.recipes.progress import SEED, Place, Recipe, Stage
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FEATURES_PER_SECOND, FRAME_SAMPLES, FRAMES_PER_SECOND, NUM_STREAMS

TEXTS, ANSWERS, CLIPS = ("text.parquet",), ("answers-*.parquet", "spoken*.parquet"), ("train-*", "heard*")
ALL = (*TEXTS, *CLIPS, *ANSWERS)
GROUP = 256                                  # answers in a batch of `make_takes`


def lite_recipe(data: Path, run: Path, device: str = "cpu", codec: Sequence[CodecPlan] = CODEC_PLANS,
                phases: Sequence[LitePhase] = LITE_PHASES) -> Recipe:
    """All stages with their plans; weights go to `run`/weights."""
    by_name = {phase.name: phase for phase in phases}

    def phase(name: str, *needs: str) -> Stage:
        before, reads = [one.name for one in phases[: list(by_name).index(name)]], TEXTS if name == "text" else ALL
        return Stage(name, partial(make_phase, by_name[name], before), by_name[name], (*before, *needs), reads)

    heard = ("tokenizer", "features", "encode")
    order: dict[str, Stage] = {
        "phase1a": phase("phase1a", *heard), "takes": Stage("takes", make_takes, None, ("codec", "phase1a"), ANSWERS)}
    order |= {name: phase(name, *heard, "takes") for name in by_name if name not in ("text", "phase1a")}
    stages = (
        Stage("codec", partial(make_codec, codec), (LITE.codec, *codec), (), ANSWERS),
        Stage("encode", make_codes, None, ("codec",), ANSWERS),
        Stage("tokenizer", make_tokenizer, LITE, (), TEXTS),
        phase("text", "tokenizer"),
        Stage("features", make_features, None, (), (*CLIPS, *ANSWERS)),
        *order.values(),
    )
    return Recipe("lite", stages, data, run, run / "weights", device)


# --- the codec ------------------------------------------------------------------------------------------


def make_codec(plans: Sequence[CodecPlan], at: Place) -> list[Path]:
    """Train LiteSNAC on the answers of the training split."""
    waves = [(wave * 32767).round().to(torch.int16) for split, _, wave in spoken_answers(at.data) if split == "train"]
    at.say(f"codec: {len(waves)} sentences, {sum(map(len, waves)) / CODEC_RATE / 60:.0f} minutes of speech")
    torch.manual_seed(SEED)
    codec = LiteSNAC(LITE.codec).eval().to(at.device)
    ears = load_ears(LITE.ear.whisper).to(at.device)
    for plan in plans:
        train_codec(codec, waves, at.work, plan, at.say, ears)
    return [save_packed(at.out / "codec.safetensors", codec.cpu().state_dict())]


def trained_codec(out: Path) -> LiteSNAC:
    """The codec of a folder of weights."""
    codec = LiteSNAC(LITE.codec).eval()
    fill(codec, out / "codec.safetensors")
    return codec


def make_codes(at: Place) -> list[Path]:
    """Codes of every answer, in the format of VoiceAssistant-400K."""
    codec = trained_codec(at.out)
    table = [dict(split_name=split, answer=text, answer_snac=codes_to_text(codec.encode(wave[None, None])[0]))
             for split, text, wave in spoken_answers(at.data)]
    at.say(f"encode: {len(table)} answers")
    return [write_table(at.run / "codes.parquet", table)]


def make_takes(at: Place) -> list[Path]:
    """Four takes of every answer's recording, with the times of its words from phase 1a's adapter.

    The takes start their frames at four offsets, so the voice does not memorise one sequence of codes.
    """
    model, tokenizer, ears = load_model(at.out, "phase1a"), load_tokenizer(at.out), load_ears(LITE.ear.whisper)
    codec = trained_codec(at.out)
    answers = [(text, wave) for split, text, wave in spoken_answers(at.data) if split == "train"]
    stacked = LITE.ear.stack / FEATURES_PER_SECOND * FRAMES_PER_SECOND     # frames a position
    table = []
    for first in tqdm(range(0, len(answers), GROUP), desc="takes", mininterval=15):
        batch = answers[first : first + GROUP]
        features, lengths = ears.features([to_mono_rate(wave, CODEC_RATE, EAR_RATE) for _, wave in batch], bf16=True)
        for (text, wave), clip, length in zip(batch, features, lengths.tolist(), strict=True):
            with torch.no_grad():
                log_probs, _ = model.likeness(model.asr_adapter(clip[None, :length]))
            middles = spoken_when(log_probs, torch.tensor([log_probs.shape[1]]), [tokenizer.encode(text).ids])[0]
            if middles is not None:
                turns = turns_of((middles + 0.5) * stacked, len(wave) / FRAME_SAMPLES)
                table.append(dict(answer=text, takes=list(map(codes_to_text, encode_takes(codec, wave))),
                                  turns=turns.tolist()))
    at.say(f"takes: aligned the words of {len(table)} of {len(answers)} answers")
    return [write_table(at.run / "takes.parquet", table)]


# --- texts and features ---------------------------------------------------------------------------------


def make_tokenizer(at: Place) -> list[Path]:
    """A byte-level BPE from all written questions and answers, and the model's config."""
    rows = read_rows([at.data / "text.parquet"], sound=False)
    tokenizer = train_tokenizer([text for row in rows for text in (row.question, row.answer)], LITE.vocab.text_base)
    target = at.out / "tokenizer.json"
    with atomic_write(target) as temporary:
        temporary.write_text(tokenizer.to_str(), encoding="utf-8")
    save_config(at.out, LITE)
    at.say(f"tokenizer: {tokenizer.get_vocab_size()} tokens")
    return [target, at.out / CONFIG_FILE]


def make_features(at: Place) -> list[Path]:
    """Encoder features of the ASR adapter's training clips, augmented, for all phases.

    The order is that of `corpus.corpus`: questions and sentences without an answer, then the answer voice.
    """
    questions = shards(at.data, "train") + extras(at.data, "heard")
    total = sum(pq.ParquetFile(path).metadata.num_rows for path in questions) + len(train_answers(at.data))
    target = at.run / "features.f16"
    store_features(target, hear_groups(load_ears(LITE.ear.whisper).to(at.device), training_clips(at.data), total))
    return [target, target.with_suffix(".offsets.npy")]


# --- phases ---------------------------------------------------------------------------------------------


def make_phase(phase: LitePhase, before: Sequence[str], at: Place) -> list[Path]:
    """Run one phase on the weights of the phases before it."""
    torch.manual_seed(SEED)
    model = OmniModel(LITE)
    for name in before:
        load_over(model, at.out / f"{name}.safetensors")
    if phase.name == "phase1b":
        start_from_codebooks(model, trained_codec(at.out))
        start_from_spelling(model, load_tokenizer(at.out))
    material = voice_corpus(at.data, at.run, at.out, at.device) if phase.trains == ("tts_adapter",) else \
        corpus(at.data, at.run, at.out, hears=phase.name != "text")
    at.say(f"{phase.name}: trains {', '.join(phase.trains)}; {len(material.written)} texts, "
           f"{len(material.transcribed)} clips, {len(material.spoken)} spoken sentences")
    teachers = [load_model(at.out, name).asr_adapter.to(at.device) for name in phase.teachers]
    train_lite_phase(model.to(at.device), phase, material, at.work, say=at.say, teachers=teachers)
    return [save_phase(at.out / f"{phase.name}.safetensors", model.cpu(), phase)]


def save_phase(path: Path, model: OmniModel, phase: LitePhase) -> Path:
    """Save the phase's trained parts; returns the path.

    The first phase also saves the random audio embeddings of special tokens: the language model learns with them.
    """
    tensors = {name: one for name, one in model.state_dict().items() if name.split(".")[0] in phase.trains}
    if phase.name == LITE_PHASES[0].name:
        tensors["audio_embed.weight"] = specials_only(model)
    return save_packed(path, tensors)


def specials_only(model: OmniModel) -> Tensor:
    """The audio embeddings of the special tokens, zeros for every code: (7 * V_audio, D)."""
    vocab = model.config.vocab
    weight = model.audio_embed.weight.detach().clone()
    weight.view(NUM_STREAMS, vocab.audio_size, -1)[:, : vocab.codebook] = 0
    return weight


def save_packed(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Save weights with `pack_int`; returns the path."""
    save_safetensors(path, pack_int(tensors))
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    """Write rows as a Parquet file; returns the path."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    return path
