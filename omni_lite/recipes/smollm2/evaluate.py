"""Measure SmolLM2's ASR adapter: transcripts, and spoken questions' answers against those to typed questions."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from whisper.model import Whisper

from omni_lite.checkpoints import CARD, read_card, sha256_of, write_card
from omni_lite.data import Row, read_rows
from omni_lite.evaluate import percent, transcribe, wer, words
from omni_lite.folder import CHECKPOINTS, ROOT
from omni_lite.interop.smollm2 import SMOLLM2_WHEEL, load_smollm2
from omni_lite.interop.whisper import load_whisper
from omni_lite.recipes.lite.corpus import shards
from omni_lite.recipes.lite.evaluate import check_counts, put_between, table, write_text
from omni_lite.recipes.smollm2.config import SMOLLM2
from omni_lite.recipes.smollm2.listen import Listener, digest
from omni_lite.recipes.smollm2.train import training_rows
from omni_lite.vocab import EAR_RATE

DOCS = ROOT / "docs" / "recipe.md"
MARKS = ("<!-- smollm2 -->", "<!-- /smollm2 -->")
COMMITTED: dict[str, Any] = dict(
    model="omni_lite: an ASR adapter through which SmolLM2-135M-Instruct, frozen, hears",
    commands=["python -m omni_lite evaluate --preset smollm2"],
    made_by="1,600 steps of CTC in two rounds of the schedule, on a larger data set than today's (docs/history.md). "
            "`make data`, `make smollm2` and `python -m omni_lite train --preset smollm2` train another one, in one "
            "round.",
    licence="MIT; made for SmolLM2-135M-Instruct (Apache-2.0) with Whisper tiny.en (MIT) and the voices of the set",
)
ANSWER_TOKENS = 32                           # of each answer to compare


# --- are two answers the same? -------------------------------------------------------------------------

SMALL_WORDS = frozenset(
    "a an the is are was were be been am do does did have has had it its this that these those of in on at to for from "
    "by with as and or so than then there here i you he she we they me my your his her our their can could will would "
    "should may might just also very which who whom what when where how s".split())
NUMBERS = frozenset(words(" ".join(map(str, [*range(21), *range(30, 100, 10), 100, 1000]))).split())
DENIALS = frozenset("no not never cannot cant dont doesnt isnt arent wasnt wont none neither nor nothing".split())
ENOUGH = 0.6


def content(text: str) -> set[str]:
    """The content words, with plurals as singulars.

    "There are 7 days in the weeks." -> {"seven", "day", "week"}
    """
    return {re.sub(r"(?<=[a-z]{3})s$", "", word) for word in words(text).split() if word not in SMALL_WORDS}


def names(text: str) -> set[str]:
    """Words with a capital letter inside a sentence, as `content`."""
    found = re.findall(r"(?<=[a-z,;:] )[A-Z][a-z]+", text)
    return content(" ".join(found))


def same_content(question: str, one: str, other: str) -> bool:
    """Whether two answers to a question have the same content.

    They are equal after `words`, or
        1. they have the same numbers, and both or neither have a negation;
        2. each name inside a sentence of one is in the other or in the question;
        3. the F1 score of their words that are not in the question is at least 0.6.

    The question's words do not count: "The color of snow is white." and "The color of snow is blue." share all words
    but the one that answers.
    """
    if words(one) == words(other):
        return True
    given, a, b = content(question), content(one), content(other)
    if a & NUMBERS != b & NUMBERS or bool(set(words(one).split()) & DENIALS) != bool(
            set(words(other).split()) & DENIALS):
        return False
    if not (names(one) | names(other)) - given <= a & b:
        return False
    a, b = a - given, b - given
    if not a or not b:
        return a == b
    return 2 * len(a & b) / (len(a) + len(b)) >= ENOUGH


# --- evaluation -----------------------------------------------------------------------------------------


def evenly(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` rows with distinct questions, taken from each skill in turn."""
    by_skill: dict[str, list[Row]] = {}
    for row in {words(row.question): row for row in reversed(rows)}.values():
        by_skill.setdefault(row.skill, []).append(row)
    out: list[Row] = []
    while len(out) < count and any(by_skill.values()):
        out += [group.pop() for _, group in sorted(by_skill.items()) if group]
    return out[:count]


def transcript_error(listener: Listener, whisper: Whisper, rows: Sequence[Row]) -> dict:
    """WER of the listener's transcripts, and of Whisper's own on the same clips."""
    waves = [row.question_wav for row in rows if row.question_wav is not None]
    wanted = [row.question for row in rows]
    heard = [listener.hear(wave) for wave in waves]
    theirs = transcribe(whisper, waves, EAR_RATE)
    wrong = [dict(wanted=w, model=h, whisper=t) for w, h, t in zip(wanted, heard, theirs, strict=True)
             if words(w) != words(h)]
    return dict(clips=len(rows), wer=round(wer(wanted, heard), 2), whisper_wer=round(wer(wanted, theirs), 2),
                wrong=wrong)


def agreement(listener: Listener, whisper: Whisper, rows: Sequence[Row]) -> dict:
    """The LLM's answers to spoken questions against its answers to the same questions typed, `ANSWER_TOKENS` of each.

    Two baselines: Whisper's transcript as the typed question; and chance, the answer to the next question of the same
    skill, which a good measure calls different.
    """
    waves = [row.question_wav for row in rows if row.question_wav is not None]
    questions = [row.question for row in rows]
    limit = ANSWER_TOKENS
    typed = [listener.answer(question, limit=limit) for question in questions]
    spoken = [listener.answer(wave, limit=limit) for wave in waves]
    cascade = [listener.answer(text or "?", limit=limit) for text in transcribe(whisper, waves, EAR_RATE)]
    others = {row.question: group[(i + 1) % len(group)] for group in
              ([r for r in rows if r.skill == skill] for skill in sorted({row.skill for row in rows}))
              for i, row in enumerate(group)}
    answer_to = dict(zip(questions, typed, strict=True))
    swapped = [(q, answer_to[q], answer_to[others[q].question]) for q in questions if others[q].question != q]
    same = [same_content(q, t, s) for q, t, s in zip(questions, typed, spoken, strict=True)]
    return dict(
        questions=len(rows),
        same=percent(same),
        exact=percent(words(t) == words(s) for t, s in zip(typed, spoken, strict=True)),
        whisper_same=percent(same_content(q, t, s) for q, t, s in zip(questions, typed, cascade, strict=True)),
        chance_same=percent(same_content(*three) for three in swapped) if swapped else 0.0,
        answers=[dict(question=q, typed=t, spoken=s, through_whisper=c, same=ok)
                 for q, t, s, c, ok in zip(questions, typed, spoken, cascade, same, strict=True)],
    )


def plain_answers(lm: Any, tokenizer: Any, questions: Sequence[str], tokens: int = 24) -> list[list[int]]:
    """Answers of transformers' own `generate`, without this project's code."""
    out = []
    for question in questions:
        text = tokenizer.apply_chat_template([dict(role="user", content=question)], add_generation_prompt=True,
                                             tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        said = lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
                           pad_token_id=tokenizer.eos_token_id)
        out.append(said[0, ids.shape[1] :].tolist())
    return out


def evaluate_smollm2(data: Path, sets: str, clips: int | None, details: Path | None) -> None:
    """Measure every figure of the committed adapter, print a table, write the card and the table in docs/recipe.md.

    sets:  "test"; "dev" does not write them
    clips: the most clips, does not write them; None: all
    """
    check_counts(clips, 1)
    folder = CHECKPOINTS / SMOLLM2.name
    rows = {name: read_rows(shards(data, f"{sets}_{name}")) for name in ("both", "voices")}
    asked = {words(row.question) for row in training_rows(data)}
    unseen = evenly([row for group in rows.values() for row in group if words(row.question) not in asked], 100)[:clips]
    fresh, tokenizer = load_smollm2()
    typed = [row.question for row in unseen[:10]]
    before = digest(fresh), plain_answers(fresh, tokenizer, typed)
    listener = Listener.load()
    whisper = load_whisper("tiny.en", full=True)
    out = dict(transcript=transcript_error(listener, whisper, rows["both"][:clips]),
               answers=agreement(listener, whisper, unseen))
    after = digest(listener.lm), plain_answers(listener.lm, listener.tokenizer, typed)
    figures = {
        "transcript WER, unseen voices and questions, %": out["transcript"]["wer"],
        "the same clips, Whisper tiny.en, %": out["transcript"]["whisper_wer"],
        "spoken question answered as the LLM answers it typed, equal in content, %": out["answers"]["same"],
        "the same, word for word, %": out["answers"]["exact"],
        "equal in content with Whisper's transcript typed instead, %": out["answers"]["whisper_same"],
        "by chance (another question's answer), %": out["answers"]["chance_same"],
        "text-only output before and after": "identical" if before == after else "CHANGED",
    }
    for name, value in figures.items():
        print(f"{name:80s} {value}")
    if details is not None:
        write_text(details, json.dumps(dict(figures=figures, **out), indent=1, ensure_ascii=False))
    if sets == "test" and clips is None:
        counts = dict(transcript=len(rows["both"][:clips]), answers=len(unseen))
        write_card(folder, card(folder, figures, before[0]) | dict(clips=counts))
        put_between(DOCS, table(figures), MARKS)


def card(folder: Path, figures: dict[str, Any], lm: str) -> dict:
    """The adapter's card with these figures and `lm`, the digest of the LLM's parameters."""
    old = read_card(folder) if (folder / CARD).exists() else {}
    return old | COMMITTED | dict(
        lm=dict(wheel=SMOLLM2_WHEEL, parameters_sha256=lm),
        figures=figures,
        sha256={path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))},
    )
