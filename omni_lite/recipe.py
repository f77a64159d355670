"""The lite preset from data to weights: `make train-lite`, `make train-short` and `python -m omni_lite evaluate`.

Stages, each resumable and skipped once its result is there:
    codec -> encode -> tokenizer -> text -> features -> phase1a -> takes -> phase1b -> phase2 -> phase3
    -> ears -> merged -> reading -> final -> decoder -> preference -> clarity -> rehearsal
"""

import hashlib
import io
import json
import math
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from safetensors import safe_open
from scipy.signal import resample_poly
from tokenizers import Tokenizer
from torch import Tensor, nn

from omni_lite.assistant import CHECKPOINTS, ROOT, Assistant, fill, load_model
from omni_lite.audio import atomic_write, to_mono_rate
from omni_lite.by_ear import DECODER_PLANS, Spoken, draw_codes, train_decoder, train_voice
from omni_lite.clarity import CLARITY_PLANS, ClarityPlan, train_clarity
from omni_lite.codec import LiteSNAC, build_codec
from omni_lite.config import LITE
from omni_lite.data import (
    FeatureStore,
    Row,
    codes_from_text,
    codes_to_text,
    decode_audio,
    load_tokenizer,
    read_rows,
    store_features,
    train_tokenizer,
)
from omni_lite.guide import spoken_when, turns_of
from omni_lite.hear import Ears
from omni_lite.model import OmniModel
from omni_lite.preference import PREFERENCE_PLANS, PreferencePlan, Recorded, Typed, prefer, say_often, some_typed
from omni_lite.rehearsal import REHEARSAL, RehearsalPlan, clear_ones, rehearse
from omni_lite.streams import Task
from omni_lite.train import (
    CODEC_PLANS,
    EVERYTHING,
    LITE_PHASES,
    CodecPlan,
    Corpus,
    Phase,
    hear_all,
    hear_groups,
    start_from_codebooks,
    start_from_spelling,
    train_codec,
    train_phase,
)
from omni_lite.vocab import (
    CODEC_RATE,
    EAR_RATE,
    FEATURES_PER_SECOND,
    FRAME_SAMPLES,
    FRAMES_PER_SECOND,
    NUM_STREAMS,
)
from omni_lite.weights import CARD, load_whisper, pack_int, read_card, save_safetensors, sha256_of, write_card

SUBSET = ROOT / "data" / "subset"
FIGURES_START, FIGURES_END = "<!-- figures -->", "<!-- /figures -->"
TIMES = ("first audio after the question's end, median, ms", "real-time factor of the whole answer")
MINUTES, SETTINGS = "minutes.json", "settings.json"       # in the run's folder: how long each stage took, and its phase
NATURAL = ("kokoro:",)                       # engines whose voices come near to people's
OTHER_SPEEDS = (92, 109)                     # of an answer's further takes, in percent; the last is not reached
NATURAL_SHARE, NATURAL_TIMES = 0.3, 15       # what they should be of all that is heard, and how often at most each
ANSWER_TIMES = 3                             # how often answers are said where other sentences are said once
DECODER_SENTENCES = 6_000                    # of the answer voice, on which its decoder is trained last
TEXT_CHECK = 500                             # written questions asked before and after hearing was learnt
# Bits of a weight: few for what later phases only start from, fewest for the parts that go on learning most. What the
# voice learns at last moves its weights by a tenth of a step of 6 bits: these would round nearly all of it away.
CODEC_BITS = {"encoder": 8, "quantizer": 8, "decoder": 8}
BITS = {"text": 6, "phase1a": 4, "phase1b": 4, "phase2": 6, "phase3": 8, "ears": 6, "merged": 6, "reading": 8,
        "final": 8}
SUPERSEDED = {("phase3", "asr_adapter"): 6, ("phase3", "tts_adapter"): 6}     # parts that later phases go over
# Files of the last phase: no file in the repository may pass 20 MB.
PARTS = {"text_embed": "lm", "trunk": "lm", "audio_embed": "voice", "asr_adapter": "voice", "tts_adapter": "voice",
         "text_head": "lm"}


@dataclass(frozen=True)
class Recipe:
    """The plans of all stages as data.

    name:      as `python -m omni_lite train --recipe` and a run's `SETTINGS` know it
    rehearsal: None: the stage is left out, and so are others without a plan
    speeds:    at how many other speeds each answer is read, see `stage_takes`
    """

    name: str = "whole"
    codec: tuple[CodecPlan, ...] = CODEC_PLANS
    phases: tuple[Phase, ...] = LITE_PHASES
    decoder: tuple[CodecPlan, ...] = DECODER_PLANS
    preference: tuple[PreferencePlan, ...] = PREFERENCE_PLANS
    clarity: tuple[ClarityPlan, ...] = CLARITY_PLANS
    rehearsal: RehearsalPlan | None = REHEARSAL
    speeds: int = 2

    @property
    def last_phase(self) -> Phase:
        return self.phases[-1]


def shortened(name: str, whole: Recipe, steps: Mapping[str, int]) -> Recipe:
    """The same with other numbers of steps, each training one round of its schedule.

    Of what is not named, phases have no steps and pass on what they get, and all else is left out.
    """

    def few(plans: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(replace(plan, steps=steps[plan.name]) for plan in plans if plan.name in steps)

    phases = tuple(replace(phase, steps=steps.get(phase.name, 0), restarts=()) for phase in whole.phases)
    return replace(whole, name=name, codec=few(whole.codec), phases=phases, decoder=few(whole.decoder),
                   preference=few(whole.preference), clarity=few(whole.clarity), rehearsal=None, speeds=0)


WHOLE = Recipe()                             # of the committed weights
# For four hours: all phases and the codec's plans, with a seventh to fifteen sixteenths of the steps, then the decoder
# learns from the codes that this voice draws.
SHORT = shortened("short", WHOLE, {
    "codec": 3000, "codec_words": 1500, "codec_polish": 1100, "codec_decoder": 500, "codec_heard": 900,
    "text": 2300, "phase1a": 1500, "phase1b": 300, "phase2": 1000, "phase3": 1600, "ears": 600, "merged": 300,
    "reading": 700, "final": 4200, "decoder_words": 950})
RECIPES = {recipe.name: recipe for recipe in (WHOLE, SHORT)}


def shards(data: Path, name: str) -> list[Path]:
    """The Parquet files of one split, in order."""
    found = sorted(data.glob(f"{name}-[0-9]*.parquet"))
    if not found:
        raise FileNotFoundError(f"{data} has no {name}-*.parquet: build the data set with `make data`, or with "
                                "`make data-short` for the short recipe.")
    return found


def extras(data: Path, name: str) -> list[Path]:
    """Shards of sentences without an answer: "heard" ones for the ears, "spoken" ones for the voice; maybe none.

    First those that make sense, then the word salads, then false answers and rare words, then those by the most
    natural voices, by blends of them, and by an engine of another kind.
    """
    kinds = (name, f"{name}_words", f"{name}_crossed", f"{name}_rare", f"{name}_natural", f"{name}_world",
             f"{name}_festival", f"{name}_vocoder")
    return [path for kind in kinds for path in sorted(data.glob(f"{kind}-[0-9]*.parquet"))]


def spoken_answers(data: Path) -> Iterator[tuple[str, str, Tensor]]:
    """(split, text, (N,) float32 at 24 kHz) of every answer of the set, and of the extra spoken sentences."""
    for path in shards(data, "answers") + extras(data, "spoken"):
        for row in pq.read_table(path).to_pylist():
            yield row["split_name"], row["answer"], decode_audio(row["audio"], CODEC_RATE)


def answer_texts(data: Path) -> list[tuple[str, str]]:
    """(split, text) of those, in order."""
    tables = [pq.read_table(path, columns=["split_name", "answer"])
              for path in shards(data, "answers") + extras(data, "spoken")]
    return [(row["split_name"], row["answer"]) for table in tables for row in table.to_pylist()]


def train_answers(data: Path) -> list[str]:
    """The texts of those that training may use, in order."""
    return [text for split, text in answer_texts(data) if split == "train"]


# --- stages -------------------------------------------------------------------------------------


def stage_codec(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu",
                recipe: Recipe = WHOLE) -> None:
    """Train LiteSNAC on the answers of the training split; keep it in `CODEC_BITS` with a scale a row."""
    target = out / "codec.safetensors"
    if target.exists():
        return
    waves = [(wave * 32767).round().to(torch.int16) for split, _, wave in spoken_answers(data) if split == "train"]
    say(f"codec: {len(waves)} sentences, {sum(map(len, waves)) / CODEC_RATE / 60:.0f} minutes of speech")
    torch.manual_seed(0)
    codec = build_codec(LITE.codec).to(device)
    assert isinstance(codec, LiteSNAC)
    ears = Ears.from_pretrained(LITE.ear.whisper).to(device)
    for plan in recipe.codec:
        train_codec(codec, waves, run, plan, say, ears)
    save_codec(target, codec.cpu())


def save_codec(path: Path, codec: LiteSNAC, last: str = "") -> None:
    """The codec in `CODEC_BITS`; `last`: the stage after `codec` that has changed it, see `stage_decoder`."""
    disown(path)
    packed: dict[str, Tensor] = {}
    for part, bits in CODEC_BITS.items():
        own = {name: tensor for name, tensor in codec.state_dict().items() if name.startswith(f"{part}.")}
        packed |= pack_int(own, bits)
    save_safetensors(path, packed, {"last": last} if last else None)


def trained_codec(out: Path) -> LiteSNAC:
    """The codec that `stage_codec` left."""
    codec = build_codec(LITE.codec)
    assert isinstance(codec, LiteSNAC)
    fill(codec, out / "codec.safetensors")
    return codec


def stage_encode(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu") -> None:
    """Codes of every answer, as VoiceAssistant-400K writes them."""
    target = run / "codes.parquet"
    if target.exists():
        return
    codec = trained_codec(out)
    table = [dict(split_name=split, answer=text, answer_snac=codes_to_text(codec.encode(wave[None, None])[0]))
             for split, text, wave in spoken_answers(data)]
    with atomic_write(target) as temporary:
        pq.write_table(pa.Table.from_pylist(table), temporary)
    say(f"encode: {len(table)} answers")


def stage_tokenizer(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu") -> None:
    """A byte-level BPE from all written questions and answers."""
    target = out / "tokenizer.json"
    if target.exists():
        return
    rows = read_rows([data / "text.parquet"], sound=False)
    tokenizer = train_tokenizer([text for row in rows for text in (row.question, row.answer)], LITE.vocab.text_base)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        temporary.write_text(tokenizer.to_str(), encoding="utf-8")
    say(f"tokenizer: {tokenizer.get_vocab_size()} tokens")


def stage_features(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu") -> None:
    """Whisper features of everything that the ears train on, augmented, once for all phases.

    First the questions and the sentences for the ears, in the order of `corpus`, then the answer voice, which is
    as good to hear as any other.
    """
    target = run / "features.f16"
    if target.exists():
        return
    questions = shards(data, "train") + extras(data, "heard")
    total = sum(pq.ParquetFile(path).metadata.num_rows for path in questions) + len(train_answers(data))
    ears = Ears.from_pretrained(LITE.ear.whisper).to(device)
    store_features(target, hear_groups(ears, training_clips(data), total, say=say))


def training_clips(data: Path, group: int = 256) -> Iterator[list[Tensor]]:
    """The sound of everything that ears train on, some clips at a time, each (N,) float32 at 16 kHz."""
    for path in shards(data, "train") + extras(data, "heard"):
        yield [row.question_wav for row in read_rows([path]) if row.question_wav is not None]
    some: list[Tensor] = []
    for split, _, wave in spoken_answers(data):
        if split == "train":
            some.append(to_mono_rate(wave, CODEC_RATE, EAR_RATE))
        if len(some) == group:
            yield some
            some = []
    if some:
        yield some


def train_codes(run: Path) -> dict[str, Tensor]:
    """The codes (7, T) of every text that training may say, from `stage_encode`."""
    return {row["answer"]: codes_from_text(row["answer_snac"])
            for row in pq.read_table(run / "codes.parquet").to_pylist() if row["split_name"] == "train"}


def token_ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """A text as the phases draw it."""
    return tuple(tokenizer.encode(text).ids)


def corpus(data: Path, run: Path, out: Path, hears: bool = True) -> Corpus:
    """What the phases draw from; `hears=False` for text pretraining, which needs no sound."""
    tokenizer = load_tokenizer(out)
    ids = partial(token_ids, tokenizer)
    rows = read_rows([data / "text.parquet"], sound=False)
    copied = [ids(row.question) for row in rows] + [ids(row.answer) for row in rows[::3]]
    written = [(ids(row.question), ids(row.answer)) for row in balanced(rows)]
    if not hears:
        return Corpus(tokenizer, written, copied, [], [], [], None)
    codes = train_codes(run)
    rows = read_rows(shards(data, "train") + extras(data, "heard"), sound=False)
    store, said = FeatureStore(run / "features.f16", LITE.ear.width), train_answers(data)
    if len(store) != len(rows) + len(said):
        raise ValueError(f"{store.path} is of other data ({len(store)} clips, not {len(rows) + len(said)}): delete it, "
                         "it will be made again.")
    questions = [ids(row.question) for row in rows]
    answers = [ids(row.answer) for row in rows]
    # What is learnt from voices that are nearest to people's carries over best: those are heard more often.
    often = how_often([row.voice for row in rows] + [""] * len(said))
    transcribed = [(clip, text) for clip, text in enumerate(questions + [ids(text) for text in said])
                   for _ in range(often[clip])]
    heard = [(clip, question, answer, codes[row.answer])
             for clip, (row, question, answer) in enumerate(zip(rows, questions, answers, strict=True)) if row.answer]
    spoken, takes = all_spoken(codes, rows, run, ids)
    return Corpus(tokenizer, written, copied, transcribed, heard, spoken, store, takes)


def how_often(voices: Sequence[str]) -> list[int]:
    """How often each clip is heard where others are heard once, so that natural voices make up `NATURAL_SHARE`."""
    natural = [voice.startswith(NATURAL) for voice in voices]
    times = NATURAL_SHARE / (1 - NATURAL_SHARE) * natural.count(False) / max(1, natural.count(True))
    return [min(NATURAL_TIMES, max(1, round(times))) if one else 1 for one in natural]


def all_spoken(codes: Mapping[str, Tensor], rows: Sequence[Row], run: Path, ids: Callable[[str], tuple[int, ...]]
               ) -> tuple[list[tuple[tuple[int, ...], tuple[int, ...], Tensor]],
                          dict[tuple[int, ...], list[tuple[Tensor, Tensor]]]]:
    """What the voice says, as `Corpus` has it under "spoken" and "takes".

    Each answer is read aloud from one question of its own, the extra sentences are simply repeated; what the model
    will say is outnumbered by those, so it is said more often, and what answers many questions most: with the root of
    their number.

    codes: of every text;  rows: questions with their answers
    """
    asked, questions = {row.answer: row.question for row in rows}, Counter(row.answer for row in rows)
    spoken = [(ids(asked.get(text, f"Repeat after me: {text}")), ids(text), code) for text, code in codes.items()
              for _ in range(times_said(questions[text]))]
    takes: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for text, some in read_takes(run / "takes.parquet") if (run / "takes.parquet").exists() else ():
        takes.setdefault(ids(text), []).extend(some)
    return spoken, takes


def times_said(questions: int) -> int:
    """How often a text is said that answers so many questions, where a sentence that answers none is said once."""
    return max(1, ANSWER_TIMES * math.ceil(math.sqrt(questions)))


def voice_corpus(data: Path, run: Path, out: Path, device: str = "cpu") -> Corpus:
    """What a phase of the voice alone draws from: all answers, and the questions of the committed subset to be heard.

    The voice shall say what the text row says, whatever was asked, so a few hundred recorded questions are enough.
    """
    tokenizer, store = load_tokenizer(out), run / "subset.f16"
    ids = partial(token_ids, tokenizer)
    codes = train_codes(run)
    rows = read_rows([SUBSET / "train.parquet"])
    if not store.exists():
        store_features(store, hear_all(Ears.from_pretrained(LITE.ear.whisper).to(device), rows))
    heard = [(clip, ids(row.question), ids(row.answer), codes.get(row.answer)) for clip, row in enumerate(rows)]
    spoken, takes = all_spoken(codes, read_rows([data / "text.parquet"], sound=False), run, ids)
    return Corpus(tokenizer, [], [], [], [row for row in heard if row[3] is not None], spoken,
                  FeatureStore(store, LITE.ear.width), takes)


def small_corpus(tokenizer: Tokenizer, rows: Sequence[Row], store: FeatureStore | None,
                 texts: Sequence[Row] = ()) -> Corpus:
    """What the phases draw from, of a few rows that have their codes, such as the committed subset.

    store: clip i is the question of row i; texts: written questions with their answers
    """
    ids = partial(token_ids, tokenizer)
    heard = [(clip, ids(row.question), ids(row.answer), row.codes) for clip, row in enumerate(rows)]
    spoken = {answer: (question, answer, codes) for _, question, answer, codes in heard if codes is not None}
    return Corpus(
        tokenizer,
        written=[(ids(row.question), ids(row.answer)) for row in balanced(list(texts))],
        copied=[ids(row.question) for row in texts[::5]],
        transcribed=[(clip, question) for clip, question, _, _ in heard],
        heard=heard, spoken=list(spoken.values()), store=store)


def stage_takes(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu",
                recipe: Recipe = WHOLE, group: int = 256) -> None:
    """Takes of every answer, and when its words are said in them, as the best ears so far hear it.

    Four of it as it is, and four at each of `recipe.speeds` others, and so higher or lower: a voice that knows one
    recording of each sentence learns its codes by heart, and says badly what it has not learnt so.
    """
    target = run / "takes.parquet"
    if target.exists():
        return
    hearing = [phase for phase in ("phase3", "phase1a") if list(out.glob(f"{phase}*.safetensors"))]
    if not hearing:
        raise FileNotFoundError(f"{out} has no phase1a.safetensors, whose ears find the words: train it first.")
    model, tokenizer, ears = load_model(out, hearing[0]), load_tokenizer(out), Ears.from_pretrained(LITE.ear.whisper)
    codec, dice = trained_codec(out), np.random.default_rng(0)
    answers = [(text, wave) for split, text, wave in spoken_answers(data) if split == "train"]
    stacked = LITE.ear.stack / FEATURES_PER_SECOND * FRAMES_PER_SECOND     # frames a position
    table, found, began = [], 0, time.time()
    for first in range(0, len(answers), group):
        some = answers[first : first + group]
        features, lengths = ears.features([to_mono_rate(wave, CODEC_RATE, EAR_RATE) for _, wave in some], bf16=True)
        for (text, wave), clip, length in zip(some, features, lengths.tolist(), strict=True):
            with torch.no_grad():
                log_probs, _ = model.likeness(model.asr_adapter(clip[None, :length]))
            middles = spoken_when(log_probs, torch.tensor([log_probs.shape[1]]), [tokenizer.encode(text).ids])[0]
            if middles is None:
                continue
            turns = turns_of((middles + 0.5) * stacked, len(wave) / FRAME_SAMPLES)
            for speed in (100, *dice.integers(*OTHER_SPEEDS, size=recipe.speeds).tolist()):
                takes = codec.encode_takes(torch.from_numpy(resample_poly(wave.numpy(), 100, speed)))
                table.append(dict(answer=text, takes=list(map(codes_to_text, takes)),
                                  turns=(turns * 100 / speed).tolist()))
            found += 1
        done = first + len(some)
        left = (time.time() - began) / done * (len(answers) - done)
        say(f"takes  {done}/{len(answers)} answers  {left / 60:.1f} min left")
    with atomic_write(target) as temporary:
        pq.write_table(pa.Table.from_pylist(table), temporary)
    say(f"takes: the words were found in {found} of {len(answers)} answers")


def read_takes(path: Path) -> Iterator[tuple[str, list[tuple[Tensor, Tensor]]]]:
    """What `stage_takes` wrote: answers with some (codes (7, T), turns (tokens,) in frames), each answer several times.
    """
    for row in pq.read_table(path).to_pylist():
        turns = torch.tensor(row["turns"])
        yield row["answer"], [(codes_from_text(codes), turns + i / len(row["takes"]))
                              for i, codes in enumerate(row["takes"])]


def stage_phase(phase: Phase, data: Path, run: Path, out: Path, say: Callable[[str], None],
                device: str = "cpu", recipe: Recipe = WHOLE) -> None:
    """One phase of the table, from what the phases before it left; one without steps passes that on."""
    if list(out.glob(f"{phase.name}*.safetensors")):
        return
    names = [p.name for p in recipe.phases]
    before = names[: names.index(phase.name)]
    if before and not (out / f"{before[0]}.safetensors").exists():
        raise FileNotFoundError(f"{out} has no {before[0]}.safetensors: every phase stands on it, train it first.")
    torch.manual_seed(0)
    model = OmniModel(LITE)
    for name in before:
        for file in sorted(out.glob(f"{name}*.safetensors")):
            model.load_over(file)
    if "tts_adapter" in phase.trains and not any("tts_adapter" in p.trains for p in recipe.phases[: len(before)]):
        start_from_codebooks(model, trained_codec(out))
    voice = model.tts_adapter
    if "tts_adapter" in phase.trains and voice is not None and voice.text is not None and not voice.text.weight.any():
        start_from_spelling(model, load_tokenizer(out))
    said = 0
    if phase.steps:
        material = voice_corpus(data, run, out, device) if phase.trains == ("tts_adapter",) else \
            corpus(data, run, out, hears=phase.name != "text")
        say(f"{phase.name}: trains {', '.join(phase.trains)}; {len(material.written)} texts, "
            f"{len(material.transcribed)} clips, {len(material.spoken)} spoken sentences")
        teachers = [load_model(out, name).asr_adapter.to(device) for name in phase.teachers]
        train_phase(model.to(device), phase, material, run, say=say, teachers=teachers)
        said = len({answer for _, answer, _ in material.spoken})
    save_phase(model.cpu(), phase, out)
    note(run / SETTINGS, phase.name, asdict(phase) | dict(said=said))


def stage_decoder(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu",
                  recipe: Recipe = WHOLE) -> None:
    """The codec's decoder and the voice once more, for what a listener hears: all codes keep their meaning.

    Plans that the codec's file already knows are not run again.
    """
    target, codec = out / "codec.safetensors", trained_codec(out)          # says so where it is missing or damaged
    names, last = [plan.name for plan in recipe.decoder], last_plan([target])
    plans = recipe.decoder[names.index(last) + 1 if last in names else 0 :]
    if not plans or last in [plan.name for plan in recipe.clarity]:
        return
    if not list(out.glob(f"{recipe.last_phase.name}*.safetensors")):
        raise FileNotFoundError(f"{out} has no {recipe.last_phase.name}.safetensors, which draws the codes: train it "
                                "first.")
    model, codec, rows = load_model(out).to(device), codec.to(device), read_rows([data / "text.parquet"], sound=False)
    ids = partial(token_ids, load_tokenizer(out))
    sentences = drawn_sentences(data, model, codec, ids, Counter(row.answer for row in rows))
    same = sum(int((one.codes == one.drawn).sum()) for one in sentences) / sum(one.codes.numel() for one in sentences)
    say(f"decoder: {len({one.text for one in sentences})} sentences; the voice draws {same:.0%} of their codes as the "
        "encoder chose them")
    whisper = load_whisper(LITE.ear.whisper, full=True).to(device)
    for plan in plans:
        if plan.voice:
            train_voice(model, codec, sentences, [ids(row.question) for row in rows], run, plan, whisper, say)
        else:
            train_decoder(codec, sentences, run, plan, whisper, say)
    if any(plan.voice for plan in plans):
        save_phase(model.cpu(), recipe.last_phase, out)
    save_codec(target, codec.cpu(), names[-1])


def stage_preference(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu",
                     recipe: Recipe = WHOLE) -> None:
    """The voice learns to prefer the clearer of its own renditions; the last phase's file knows how far it is."""
    phase = recipe.last_phase
    names, last = [plan.name for plan in recipe.preference], last_plan(out.glob(f"{phase.name}*.safetensors"))
    plans = recipe.preference[names.index(last) + 1 if last in names else 0 :]
    if not plans or (recipe.rehearsal and last == recipe.rehearsal.name):
        return
    model, codec = load_model(out).to(device), trained_codec(out).to(device)
    rows, ids = read_rows([data / "text.parquet"], sound=False), partial(token_ids, load_tokenizer(out))
    whisper = load_whisper(LITE.ear.whisper, full=True).to(device)
    typed, recorded = typed_by_skill(data, rows, ids), recorded_answers(ids)
    for plan in plans:
        prefer(model, codec, whisper, some_typed(typed, plan), recorded, run, plan, say)
    save_phase(model.cpu(), phase, out, names[-1])


def stage_clarity(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu",
                  recipe: Recipe = WHOLE) -> None:
    """The codec's decoder learns from renditions by the voice as it is now; the codec's file knows how far it is."""
    target, codec = out / "codec.safetensors", trained_codec(out).to(device)
    names, last = [plan.name for plan in recipe.clarity], last_plan([target])
    plans = recipe.clarity[names.index(last) + 1 if last in names else 0 :]
    if not plans:
        return
    model, rows = load_model(out).to(device), read_rows([data / "text.parquet"], sound=False)
    ids = partial(token_ids, load_tokenizer(out))
    sentences = drawn_sentences(data, model, codec, ids, Counter(row.answer for row in rows))
    whisper, questions = load_whisper(LITE.ear.whisper, full=True).to(device), [ids(row.question) for row in rows]
    for plan in plans:
        dice, texts = random.Random(plan.name), {one.text: one.tokens for one in sentences}
        typed = [Typed(dice.choice(questions), texts[text], text)
                 for text in dice.sample(sorted(texts), min(plan.texts, len(texts)))]
        said = [(one.said.text, codes) for one in say_often(model, codec, whisper, typed, plan, run, say)
                for codes in one.codes]
        train_clarity(codec, sentences, said, run, plan, whisper, say)
    save_codec(target, codec.cpu(), names[-1])


def stage_rehearsal(data: Path, run: Path, out: Path, say: Callable[[str], None], device: str = "cpu",
                    recipe: Recipe = WHOLE) -> None:
    """The voice learns the words that it has met least, and holds what it says clearly."""
    phase, plan = recipe.last_phase, recipe.rehearsal
    if plan is None or last_plan(out.glob(f"{phase.name}*.safetensors")) == plan.name:
        return
    model, codec, tokenizer = load_model(out).to(device), trained_codec(out), load_tokenizer(out)
    rows, ids = read_rows([data / "text.parquet"], sound=False), partial(token_ids, tokenizer)
    questions, dice = [ids(row.question) for row in rows], random.Random(plan.name)
    takes = rare_takes(data, codec, ids) if plan.rare else {}
    others = [Typed(dice.choice(questions), ids(text), text) for text in texts_alone(data, *plan.others)]
    typed = some_typed(typed_by_skill(data, rows, ids), plan)
    typed += dice.sample(others, min(len(others), len(typed) // 2))
    whisper = load_whisper(LITE.ear.whisper, full=True).to(device)
    said = say_often(model, codec.to(device), whisper, typed, plan, run, say, plan.guidance)
    rare = [(dice.choice(questions), answer, some[0]) for answer, some in takes.items()]
    piles = dict(rare=rare, own=clear_ones(said, plan.clear), recorded=recorded_answers(ids))
    rehearse(model, tokenizer, questions, piles, takes, run, plan, say)
    save_phase(model.cpu(), phase, out, plan.name)


def texts_alone(data: Path, *names: str) -> list[str]:
    """What the voice says beside the answers, of some shards by name."""
    return [text for name in names for path in sorted(data.glob(f"{name}-[0-9]*.parquet"))
            for text in pq.read_table(path, columns=["answer"])["answer"].to_pylist()]


def rare_takes(data: Path, codec: LiteSNAC, ids: Callable[[str], tuple[int, ...]]
               ) -> dict[tuple[int, ...], list[Tensor]]:
    """The recordings of rare words: tokens -> codes (7, T) of eight takes, four at another speed, see `stage_takes`."""
    dice, takes = np.random.default_rng(33), {}
    for path in shards(data, "spoken_rare"):
        for row in pq.read_table(path).to_pylist():
            wave, speed = decode_audio(row["audio"], CODEC_RATE), int(dice.integers(*OTHER_SPEEDS))
            other = torch.from_numpy(resample_poly(wave.numpy(), 100, speed))
            takes[ids(row["answer"])] = codec.encode_takes(wave) + codec.encode_takes(other)
    return takes


def last_plan(paths: Iterable[Path]) -> str | None:
    """The latest plan that changed a part after its own stage, as the part's files know it."""
    last = None
    for path in paths:
        with safe_open(path, "pt") as file:
            last = (file.metadata() or {}).get("last", last)
    return last


def typed_by_skill(data: Path, rows: Sequence[Row], ids: Callable[[str], tuple[int, ...]]) -> dict[str, list[Typed]]:
    """What the voice may say to learn from: written questions with answers that are not kept for the tests."""
    held = {text for split, text in answer_texts(data) if split != "train"}
    found: dict[str, list[Typed]] = {}
    for row in rows:
        if row.answer not in held:
            found.setdefault(row.skill, []).append(Typed(ids(row.question), ids(row.answer), row.answer))
    return found


def recorded_answers(ids: Callable[[str], tuple[int, ...]]) -> list[Recorded]:
    """The answers of the committed subset with the codes of their recordings."""
    return [(ids(row.question), ids(row.answer), row.codes)
            for row in read_rows([SUBSET / "train.parquet"], sound=False) if row.codes is not None]


def drawn_sentences(data: Path, model: OmniModel, codec: LiteSNAC, ids: Callable[[str], tuple[int, ...]],
                    questions: Mapping[str, int], group: int = 16) -> list[Spoken]:
    """Some sentences of the training split with their codes, and with those that the voice draws.

    questions: how many each text answers: those are chosen, and come, the oftener
    """
    device = model.bands.device
    pool = [i for i, text in enumerate(train_answers(data)) for _ in range(times_said(questions.get(text, 0)))]
    chosen = Counter(random.Random(0).sample(pool, min(len(pool), DECODER_SENTENCES)))
    said = ((text, wave) for split, text, wave in spoken_answers(data) if split == "train")
    some = sorted(((text, wave, chosen[i]) for i, (text, wave) in enumerate(said) if i in chosen),
                  key=lambda one: len(one[1]))                              # groups of like length
    torch.manual_seed(0)
    sentences: list[Spoken] = []
    for first in range(0, len(some), group):
        texts, waves, times = zip(*some[first : first + group], strict=True)
        tokens = [ids(text) for text in texts]
        codes = [codec.encode(wave[None, None].to(device))[0].cpu() for wave in waves]
        drawn = draw_codes(model, list(zip(tokens, codes, strict=True)))
        for text, said_as, wave, known, others, often in zip(texts, tokens, waves, codes, drawn, times, strict=True):
            sentences += often * [Spoken((wave * 32767).round().to(torch.int16), known, others, text, said_as)]
    return sentences


def save_phase(model: OmniModel, phase: Phase, out: Path, last: str = "") -> None:
    """What the phase may change, as whole numbers with a scale a row; in two files where that is everything.

    last: the plan after the phase that has changed it, see `stage_preference`

    In 16 bits all phases together would not fit into the repository, see `BITS`. The first phase also keeps the
    embeddings of silence and of the audio rows' other marks, which it reads but does not train: a language
    model that learnt beside them knows no others.
    """
    files: dict[str, dict[str, Tensor]] = {}
    if phase.name == LITE_PHASES[0].name:
        files[phase.name] = {"audio_embed.weight": marks_only(model)}
    for name, tensor in model.state_dict().items():
        part = name.split(".")[0]
        if part in phase.trains:
            file = f"{phase.name}-{PARTS[part]}" if phase.trains == EVERYTHING else phase.name
            files.setdefault(file, {})[name] = tensor
    for file, tensors in files.items():
        disown(out / f"{file}.safetensors")
        packed: dict[str, Tensor] = {}
        for bits in set(BITS.values()):
            packed |= pack_int({name: tensor for name, tensor in tensors.items()
                                if SUPERSEDED.get((phase.name, name.split(".")[0]), BITS[phase.name]) == bits}, bits)
        save_safetensors(out / f"{file}.safetensors", packed, {"phase": phase.name} | ({"last": last} if last else {}))


def disown(path: Path) -> None:
    """Take a weight file that is about to be trained anew out of the card beside it, which describes the old one."""
    if (path.parent / CARD).exists():
        card = read_card(path.parent)
        if card.get("sha256", {}).pop(path.name, None) is not None:
            write_card(path.parent, card)


def marks_only(model: OmniModel) -> Tensor:
    """The audio embeddings with zeros for every code: what is left are the marks. (7 * V_audio, D)"""
    vocab = model.config.vocab
    weight = model.audio_embed.weight.detach().clone()
    weight.view(NUM_STREAMS, vocab.audio_size, -1)[:, : vocab.codebook] = 0
    return weight


def save_half(path: Path, module: nn.Module) -> None:
    """A whole module in 16 bits."""
    disown(path)
    save_safetensors(path, {name: tensor.to(torch.float16) for name, tensor in module.state_dict().items()})


def train_lite(data: Path, run: Path, out: Path | None, only: str | None, device: str = "cpu",
               recipe: Recipe = WHOLE) -> None:
    """All stages in order; finished ones are skipped, so a killed run is simply started again.

    device: "cpu" or "cuda", on which the same steps are taken
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here, so leave it out or install a torch with CUDA.")
    out = out or CHECKPOINTS / "lite"
    run.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    phases = {phase.name: partial(stage_phase, phase, recipe=recipe) for phase in recipe.phases}
    stages: dict[str, Callable[..., None]] = {
        "codec": partial(stage_codec, recipe=recipe), "encode": stage_encode, "tokenizer": stage_tokenizer,
        "text": phases.pop("text"), "features": stage_features, "phase1a": phases.pop("phase1a"),
        "takes": partial(stage_takes, recipe=recipe), **phases,
        "decoder": partial(stage_decoder, recipe=recipe), "preference": partial(stage_preference, recipe=recipe),
        "clarity": partial(stage_clarity, recipe=recipe), "rehearsal": partial(stage_rehearsal, recipe=recipe)}
    if only is not None and only not in stages:
        raise ValueError(f"There is no stage {only!r}: choose one of {', '.join(stages)}.")
    with open(run / "log.txt", "a", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, flush=True)
            log.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
            log.flush()

        config = json.dumps(LITE.to_dict(), indent=2) + "\n"
        with atomic_write(out / "config.json") as temporary:
            temporary.write_text(config, encoding="utf-8")
        for name in [only] if only else stages:
            began = time.time()
            stages[name](data, run, out, say, device)
            if time.time() - began > 1:
                say(f"{name}: done after {(time.time() - began) / 60:.1f} min")
                note_time(run, name, time.time() - began, recipe)
                note(run / SETTINGS, "recipe", recipe.name)


def note_time(run: Path, stage: str, seconds: float, recipe: Recipe = WHOLE) -> None:
    """Keep the minutes that a stage took; a training's own states know them over all its starts.

    Some stages have a state for each of their plans. Of what passes between those, the last start alone is known.
    """
    plans: Mapping[str, Sequence[CodecPlan | PreferencePlan | ClarityPlan]] = dict(
        codec=recipe.codec, decoder=recipe.decoder, preference=recipe.preference, clarity=recipe.clarity)
    names = [plan.name for plan in plans[stage]] if stage in plans else [stage]
    states = [path for name in names if (path := run / f"{name}.pt").exists()]
    seconds = max(seconds, sum(torch.load(state, weights_only=True)["seconds"] for state in states))
    note(run / MINUTES, stage, round(seconds / 60, 2))


def note(path: Path, key: str, value: object) -> None:
    """Put one more entry into a small JSON file."""
    notes = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(notes | {key: value}, indent=2))


def balanced(rows: list[Row], phrasings: int = 10, repeats: float = 0.1, usual: int = 300) -> list[Row]:
    """Written questions such that each fact is read about equally often, however many phrasings it has.

    A skill of few facts is harder to learn than one of many that share a sentence: the model knew nearly all
    capitals when it knew every fifth single fact. So the fewer a skill has, the more often each is read: `phrasings`
    times where it has `usual` facts, up to four times as often where it has fewer, by the square root.
    Sentences to repeat outnumber the facts many times: `repeats` of them are kept for each fact's row.
    """
    facts: dict[str, list[Row]] = {}
    for row in rows:
        if row.skill not in ("repeat", "unknown"):
            facts.setdefault(row.answer, []).append(row)
    sizes = Counter(some[0].skill for some in facts.values())
    kept = [row for row in rows if row.skill == "unknown"]
    for some in facts.values():
        times = phrasings * min(4.0, max(1.0, math.sqrt(usual / sizes[some[0].skill])))
        kept += some * math.ceil(times / len(some))
    spare = [row for row in rows if row.skill == "repeat"]
    return kept + random.Random(0).sample(spare, min(len(spare), round(repeats * len(kept))))


# --- evaluation -----------------------------------------------------------------------------------


def evaluate_lite(data: Path, preset: str, sets: str, clips: int | None, details: Path | None,
                  keep_times: bool = False, seeds: int = 4, weights: Path | None = None) -> None:
    """Every figure of the card on the committed weights, or on others; prints a table, writes the card beside them.

    weights: another folder than the committed one; the README then keeps its figures
    sets: "test" for the card; "dev" while developing, which leaves the card alone
    keep_times: the figures of `TIMES` stay as the card has them, for a machine that is busy or another than the card's
    seeds: see `evaluate.spoken_error`
    """
    from omni_lite import evaluate as ev

    ev.check_seeds(seeds)
    folder = weights or CHECKPOINTS / preset
    known = read_card(folder).get("figures", {}) if keep_times else {}
    if keep_times and not set(TIMES) <= set(known):
        raise ValueError(f"{folder / CARD} has no times to keep: leave out --keep-times, and they are measured.")
    names = ("facts", "voices", "both", "phrasings")
    rows = {name: read_rows(shards(data, f"{sets}_{name}"))[:clips] for name in names}
    sentences = list(islice(((text, wave) for split, text, wave in spoken_answers(data) if split == sets), 250))
    if not sentences:
        raise ValueError(f"{data} has no spoken answer of the {sets} split, with which the codec is judged: build the "
                         "data set with `make data`.")
    assistant = Assistant.load(preset, weights=weights).quick()
    assistant.warm_up()
    whisper = load_whisper("tiny.en", full=True)
    out: dict[str, dict] = {name: ev.exact_answers(assistant, some) for name, some in rows.items()}
    for name in rows:
        print(f"{name:10s} {out[name]['exact']} %  {out[name]['by']}", flush=True)
    out["transcript"] = ev.transcript_error(assistant, whisper, rows["voices"])
    spoken = [row for name in ("voices", "facts") for row in (rows[name] if clips else first_half(rows[name]))]
    out["spoken"] = ev.spoken_error(assistant, whisper, spoken, seeds=seeds)
    out["int8"] = ev.same_text(assistant, rows["voices"])
    assert isinstance(assistant.codec, LiteSNAC)
    out["codec"] = ev.codec_error(assistant.codec, whisper, sentences[:clips])
    written = read_rows([data / "text.parquet"], sound=False)
    facts = [row for row in written if row.fact][:: max(1, len(written) // TEXT_CHECK)]
    out["text"] = ev.exact_answers(assistant, facts[:clips], Task.T1T2)
    before = Assistant(assistant.ears, load_model(folder, "text"), assistant.codec, assistant.tokenizer) \
        if (folder / "text.safetensors").exists() else None
    if before is not None:
        out["text_before"] = ev.exact_answers(before, facts[:clips], Task.T1T2)
    figures = summary(out) | {name: known[name] for name in TIMES if keep_times}
    for name, value in figures.items():
        print(f"{name:60s} {value}")
    print("spoken answers with each seed, WER, %: ", *out["spoken"]["wer_of_each_seed"])
    if details is not None:
        details.write_text(json.dumps(dict(figures=figures, **out), indent=1, ensure_ascii=False))
    if sets == "test":
        counts = {name: len(some) for name, some in rows.items()}
        write_card(folder, card(data, folder, figures, run_of(folder)) | dict(clips=counts))
        if weights is None:
            quote_in_readme(ROOT / "README.md", figures)


def first_half(rows: Sequence[Row]) -> list[Row]:
    """The first half of a test set as it was planned, in which each skill comes as often as in the whole.

    (Every second row would be half of the skills, which take turns; shards are in the order of the engines.)
    """
    return sorted(rows, key=lambda row: row.index)[: len(rows) // 2]


def table(figures: Mapping[str, float | str]) -> str:
    """The figures as a Markdown table."""
    rows = [f"| {name} | {value} |" for name, value in figures.items()]
    return "\n".join(["| figure | measured |", "|---|---|", *rows])


def quote_in_readme(path: Path, figures: Mapping[str, float | str],
                    marks: tuple[str, str] = (FIGURES_START, FIGURES_END)) -> None:
    """Put the table between two marks of the README, so that it always quotes the card."""
    put_between(path, table(figures), marks)


def put_between(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Replace what stands between two marks of a text file."""
    start, end = marks
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, mark, after = rest.partition(end)
    if not mark:
        raise ValueError(f"{path} lacks the marks {start} and {end}: put them where the table belongs.")
    with atomic_write(path) as temporary:
        temporary.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def summary(out: dict[str, dict]) -> dict[str, float]:
    """The table's rows."""
    figures = {
        "exact answers, facts known from text only, known voices, %": out["facts"]["exact"],
        "exact answers, unseen voices and engine, %": out["voices"]["exact"],
        "exact answers, both at once, %": out["both"]["exact"],
        "exact answers, phrasings never seen, known voices, %": out["phrasings"]["exact"],
        "transcript WER, unseen voices, %": out["transcript"]["wer"],
        "the same clips, Whisper tiny.en, %": out["transcript"]["whisper_wer"],
        "spoken answer against its text, WER, %": out["spoken"]["wer"],
        "codec: WER decoded minus input, points": out["codec"]["points"],
        "text answers from text after the last phase, %": out["text"]["exact"],
    }
    if "text_before" in out:
        figures["text answers from text after text pretraining, %"] = out["text_before"]["exact"]
    figures["the same text in int8 as in fp32, unseen voices, %"] = out["int8"]["same"]
    figures |= dict(zip(TIMES, (out["spoken"]["first_audio_ms"], out["spoken"]["rtf"]), strict=True))
    return figures


def card(data: Path, folder: Path, figures: dict[str, float], run: Path) -> dict:
    """What these weights are: how made, from what, on what, and how good.

    run: the folder of their training. What was not trained there is taken over from the card beside the weights: who
         only evaluates changes the figures alone, and who trains one phase anew changes its entry.
    """
    minutes, settings = ({} if not path.exists() else json.loads(path.read_text())
                         for path in (run / MINUTES, run / SETTINGS))
    recipe = RECIPES[settings.get("recipe", WHOLE.name)]
    old = read_card(folder) if (folder / CARD).exists() else {}
    before = {phase["name"]: phase for phase in old.get("phases", [])}
    names = [phase.name for phase in recipe.phases]
    same = dict(figures=figures, sha256={path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))})
    trained = dict(
        minutes=old.get("minutes", {}) | minutes,
        phases=[settings.get(phase.name, before.get(phase.name, asdict(phase))) for phase in recipe.phases],
        codec=[asdict(plan) for plan in (*recipe.codec, *recipe.decoder)],
        preference=[asdict(plan) for plan in recipe.preference],
        clarity=[asdict(plan) for plan in recipe.clarity],
        rehearsal=[asdict(recipe.rehearsal)] if recipe.rehearsal else [],
    )
    if old and not set(names) <= set(settings):
        return old | same | (trained if settings else {})
    digest = hashlib.sha256()
    for path in sorted(data.glob("*.parquet")):
        digest.update(sha256_of(path).encode())
    return dict(
        model="omni_lite lite preset: LiteSNAC, text LM and Mini-Omni's phases, trained in this repository",
        commands=commands_of(recipe),
        date=date.today().isoformat(),
        seed=0,
        data_sha256=digest.hexdigest(),
        hardware=f"{platform.machine()}, {torch.get_num_threads()} cores, torch {torch.__version__}",
        licence="MIT; made with Piper joe (CC0 data), Kokoro-82M (Apache-2.0), flite, Festival, WORLD, espeak-ng, "
                "Whisper tiny.en (MIT)",
        **trained,
        **same,
    )


def run_of(folder: Path) -> Path:
    """Where the unfinished work of a folder of weights is: beside it, but for the committed ones."""
    return ROOT / "runs" / folder.name if folder.parent == CHECKPOINTS else folder.parent


def commands_of(recipe: Recipe) -> list[str]:
    """How the weights of a recipe are made anew."""
    if recipe.name == WHOLE.name:
        return ["make data", "make train-lite", "python -m omni_lite evaluate"]
    return [f"make data-{recipe.name}", f"make train-{recipe.name}"]


# --- the committed subset ---------------------------------------------------------------------------


def write_subset(data: Path, out: Path, train: int = 800, test: int = 60, seed: int = 0) -> None:
    """Parquet files small enough for the repository: questions as Ogg Opus, answers as codes, and the texts.

    train: questions of the training split, every skill in proportion to the root of its size
    test:  questions of each held-out set, the first ones, which are mixed already
    """
    codes = {row["answer"]: row["answer_snac"] for row in pq.read_table(codes_file(data)).to_pylist()}
    out.mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
    rows = [row for path in shards(data, "train") for row in pq.read_table(path).to_pylist()]
    by_skill: dict[str, list[dict]] = {}
    for row in rows:
        by_skill.setdefault(row["skill"], []).append(row)
    share = train / sum(math.sqrt(len(some)) for some in by_skill.values())
    picked = [row for some in by_skill.values() for row in dice.sample(some, round(share * math.sqrt(len(some))))]
    dice.shuffle(picked)
    sets = {"train": picked}
    for name in ("facts", "voices", "both", "phrasings"):
        for split in ("dev", "test"):
            found = [row for path in shards(data, f"{split}_{name}") for row in pq.read_table(path).to_pylist()]
            sets[f"{split}_{name}"] = dice.sample(found, test if split == "test" else test // 3)
    for name, some in sets.items():
        for row in some:
            row["question_audio"] = dict(bytes=ogg(row["question_audio"]["bytes"]), path=f"{row['index']}.ogg")
            row["answer_snac"] = codes.get(row["answer"], "")
        with atomic_write(out / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(some), temporary, compression="zstd", compression_level=19)
    texts = pq.read_table(data / "text.parquet", columns=["split_name", "index", "round", "question", "answer", "skill",
                                                          "fact"])
    with atomic_write(out / "text.parquet") as temporary:
        pq.write_table(texts, temporary, compression="zstd", compression_level=19)
    size = sum(path.stat().st_size for path in out.glob("*.parquet"))
    print(f"{sum(map(len, sets.values()))} questions, {texts.num_rows} texts, {size / 1e6:.1f} MB in {out}")


def codes_file(data: Path) -> Path:
    """Where `stage_encode` left the codes of every answer."""
    path = ROOT / "runs" / "lite" / "codes.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: train the codec first (`make train-lite`).")
    return path


def ogg(flac: bytes) -> bytes:
    """The same sound as Ogg Opus at about 20 kbit/s: Vorbis spends 4 KB on its headers alone."""
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="OGG", subtype="OPUS", compression_level=0.96)
    return buffer.getvalue()
