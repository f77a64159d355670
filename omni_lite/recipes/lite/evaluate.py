"""Measure every figure of the lite preset on the test sets: `python -m omni_lite evaluate`."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor
from whisper.model import Whisper

from omni_lite.assistant import Assistant
from omni_lite.audio import atomic_write
from omni_lite.checkpoints import CARD, read_card, sha256_of, write_card
from omni_lite.config import LITE
from omni_lite.data import Row, read_rows
from omni_lite.evaluate import (
    answers_to,
    exact_answers,
    percent,
    spoken_error,
    transcribe,
    transcript_error,
    wer,
    words,
)
from omni_lite.fast import faster, quick
from omni_lite.folder import CHECKPOINTS, ROOT, load_model
from omni_lite.interop.whisper import load_whisper
from omni_lite.litesnac import LiteSNAC
from omni_lite.load import load_assistant
from omni_lite.recipes.lite.corpus import shards, spoken_answers
from omni_lite.recipes.lite.stages import lite_recipe
from omni_lite.streams import Task
from omni_lite.threads import use_one_thread_if_small
from omni_lite.vocab import CODEC_RATE

README = ROOT / "README.md"
FIGURES = ("<!-- figures -->", "<!-- /figures -->")
SETS = ("facts", "voices", "both", "phrasings")
TIMES = ("first audio after the question's end, median, ms", "real-time factor of the whole answer")
TEXT_CHECK = 500                             # written questions to ask, about
LICENCE = ("MIT; made with Piper joe (CC0 data), Kokoro-82M (Apache-2.0), flite, Festival, WORLD, espeak-ng, "
           "Whisper tiny.en (MIT)")
COMMITTED: dict[str, Any] = dict(
    model="omni_lite lite preset: LiteSNAC, text LM and Mini-Omni's phases, trained in this repository",
    commands=["python -m omni_lite evaluate"],
    made_by="Stages run in many sittings, with plans that changed between them and some scripts that were not kept. No "
            "single command makes these weights: docs/history.md tells how they were made, and the code of their "
            "stages is at the tag lite-weights-1. The recipe that runs from nothing is `make train-lite`; its "
            "weights are others.",
    licence=LICENCE,
)


def evaluate_lite(data: Path, sets: str = "test", clips: int | None = None, details: Path | None = None,
                  keep_times: bool = False, seeds: int = 4, weights: Path | None = None) -> None:
    """Measure every figure of the card, print a table, write the card and the README's table.

    sets:    "test"; "dev" does not write card and README
    clips:   the most clips of each set, does not write card and README; None: all
    weights: another folder than the committed one; does not write the README
    keep_times: keep the card's figures of `TIMES`, for a busy or a different machine
    seeds:   see `evaluate.spoken_error`
    """
    check_counts(clips, seeds)
    folder = weights or CHECKPOINTS / LITE.name
    known = read_card(folder).get("figures", {}) if keep_times else {}
    if keep_times and not set(TIMES) <= set(known):
        raise ValueError(f"{folder / CARD} does not state times: leave out --keep-times to measure them.")
    writes = sets == "test" and clips is None
    if writes:
        card(data, folder, {})               # raises if a stage is not done, before an hour of measuring
    rows = {name: read_rows(shards(data, f"{sets}_{name}"))[:clips] for name in SETS}
    sentences = list(islice(((text, wave) for split, text, wave in spoken_answers(data) if split == sets), 250))
    if not sentences:
        raise ValueError(f"{data} lacks spoken answers of the {sets} split, which the codec's figure needs: build the "
                         "data set with `make data`.")
    assistant = quick(load_assistant(weights=weights))
    if not isinstance(assistant.codec, LiteSNAC):
        raise ValueError(f"{folder} is not a model of the lite preset: `evaluate` measures only lite models.")
    use_one_thread_if_small(assistant.model)     # as in talk and the live demo
    assistant.warm_up()
    out = measure(assistant, folder, rows, sentences[:clips], data, clips, seeds)
    figures = summary(out) | {name: known[name] for name in TIMES if keep_times}
    for name, value in figures.items():
        print(f"{name:60s} {value}")
    print("spoken answers with each seed, WER, %: ", *out["spoken"]["wer_of_each_seed"])
    if details is not None:
        write_text(details, json.dumps(dict(figures=figures, **out), indent=1, ensure_ascii=False))
    if writes:
        counts = {name: len(group) for name, group in rows.items()}
        write_card(folder, card(data, folder, figures) | dict(clips=counts))
        if weights is None:
            put_between(README, table(figures), FIGURES)


def measure(assistant: Assistant, folder: Path, rows: Mapping[str, list[Row]], sentences: Sequence[tuple[str, Tensor]],
            data: Path, clips: int | None, seeds: int) -> dict[str, dict]:
    """All measurements in full; `summary` picks the table's figures."""
    whisper = load_whisper("tiny.en", full=True)
    out: dict[str, dict] = {name: exact_answers(assistant, group) for name, group in rows.items()}
    for name in rows:
        print(f"{name:10s} {out[name]['exact']} %  {out[name]['by']}", flush=True)
    out["transcript"] = transcript_error(assistant, whisper, rows["voices"])
    spoken = [row for name in ("voices", "facts") for row in (rows[name] if clips else first_half(rows[name]))]
    out["spoken"] = spoken_error(assistant, whisper, spoken, seeds=seeds)
    fast = faster(Assistant(assistant.ears, assistant.model, assistant.codec, assistant.tokenizer), "int8")
    out["int8"] = same_text(assistant, fast, rows["voices"])
    assert isinstance(assistant.codec, LiteSNAC)
    out["codec"] = codec_error(assistant.codec, whisper, sentences)
    written = read_rows([data / "text.parquet"], sound=False)
    facts = [row for row in written if row.fact][:: max(1, len(written) // TEXT_CHECK)]
    out["text"] = exact_answers(assistant, facts[:clips], Task.T1T2)
    if (folder / "text.safetensors").exists():
        before = Assistant(assistant.ears, load_model(folder, "text"), assistant.codec, assistant.tokenizer)
        out["text_before"] = exact_answers(before, facts[:clips], Task.T1T2)
    return out


def check_counts(clips: int | None, seeds: int) -> None:
    """Raise a ValueError if there is nothing to measure."""
    if clips is not None and clips < 1:
        raise ValueError(f"--clips {clips} leaves nothing to measure: give 1 or more, or leave it out for all.")
    if seeds < 1:
        raise ValueError(f"--seeds {seeds} leaves nothing to say: give 1 or more.")


def same_text(assistant: Assistant, other: Assistant, rows: Sequence[Row],
              say: Callable[[str], None] = print) -> dict:
    """Percent of answers whose text two assistants agree on, such as fp32 and int8."""
    pairs = list(zip(*(answers_to(one, rows, Task.A1T2, say) for one in (assistant, other)), strict=True))
    different = [dict(plain=plain.text, other=quick.text) for plain, quick in pairs if plain.text != quick.text]
    return dict(clips=len(rows), same=percent(plain.text == quick.text for plain, quick in pairs), different=different)


def codec_error(codec: LiteSNAC, whisper: Whisper, sentences: Sequence[tuple[str, Tensor]]) -> dict:
    """WER of encoded and decoded speech, minus the WER of the original speech.

    sentences: held-out (text, (N,) float32 at 24 kHz)
    """
    texts = [text for text, _ in sentences]
    waves = [wave for _, wave in sentences]
    decoded = [codec.decode(codec.encode(wave[None, None]))[0, 0, : len(wave)] for wave in waves]
    before = wer(texts, transcribe(whisper, waves, CODEC_RATE))
    heard = transcribe(whisper, decoded, CODEC_RATE)
    after = wer(texts, heard)
    return dict(sentences=len(texts), wer_input=round(before, 2), wer_decoded=round(after, 2),
                points=round(after - before, 2),
                wrong=[dict(text=t, heard=h) for t, h in zip(texts, heard, strict=True) if words(t) != words(h)])


def first_half(rows: Sequence[Row]) -> list[Row]:
    """The first half of a test set by index, with the skills in the same proportion as in the whole set.

    Every second row would have only half of the skills, and shards are in the order of the engines.
    """
    return sorted(rows, key=lambda row: row.index)[: len(rows) // 2]


def table(figures: Mapping[str, float | str]) -> str:
    """The figures as a Markdown table."""
    rows = [f"| {name} | {value} |" for name, value in figures.items()]
    return "\n".join(["| figure | measured |", "|---|---|", *rows])


def put_between(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Replace the text between two marks of a file."""
    start, end = marks
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, mark, after = rest.partition(end)
    if not mark:
        raise ValueError(f"{path} lacks the marks {start} and {end}: put them where the table belongs.")
    write_text(path, f"{before}{start}\n{text}\n{end}{after}")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def card(data: Path, folder: Path, figures: dict[str, float]) -> dict:
    """The card of a folder of weights, with these figures.

    The committed weights keep their card's record of the training. A run's weights get the plans, minutes and versions
    of its manifests.
    """
    old = read_card(folder) if (folder / CARD).exists() else {}
    same = dict(figures=figures, sha256={path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))})
    if folder.resolve().parent == CHECKPOINTS.resolve():
        return old | COMMITTED | same
    recipe = lite_recipe(data, folder.parent)
    stages = {stage.name: recipe.manifest(stage.name) for stage in recipe.stages}
    lacking = [name for name, manifest in stages.items() if manifest is None]
    if lacking:
        raise ValueError(f"{folder} is not whole: {lacking[0]} is not done, run `make train-lite` to its end first.")
    return dict(
        model="omni_lite lite preset: LiteSNAC, text LM and Mini-Omni's phases, trained by the lite recipe",
        commands=["make data", "make train-lite"],
        date=date.today().isoformat(),
        licence=LICENCE,
        minutes=recipe.minutes(),
        stages={name: dict(plan=found["origin"]["plan"], seed=found["origin"]["seed"], code=found["origin"]["code"],
                           machine=found["machine"]) for name, found in stages.items() if found is not None},
        **same,
    )
