"""An LLM's ears from data to committed weights: `python -m omni_lite train | evaluate --preset smollm2`.

Stages, each resumable and skipped once its result is there:
    features  Whisper features of every training clip; those of the lite recipe where they are there
    words     phase 1a without the LLM: which of its tokens does each position sound like? (CTC)
    answers   what the LLM itself answers to every typed question of the training set
    adapter   phase 1a through the frozen LLM: from speech to transcripts and to the LLM's own answers
"""

import hashlib
import json
import platform
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from whisper.model import Whisper

from omni_lite.assistant import CHECKPOINTS, ROOT
from omni_lite.audio import atomic_write
from omni_lite.config import SMOLLM2
from omni_lite.data import FeatureStore, Row, read_rows, store_features
from omni_lite.evaluate import percent, transcribe, wer, words
from omni_lite.hear import Ears
from omni_lite.listen import ADAPTER, CONFIG, Listener, digest
from omni_lite.precision import mixed_precision
from omni_lite.recipe import (
    disown,
    extras,
    how_often,
    note_time,
    quote_in_readme,
    shards,
    train_answers,
    training_clips,
)
from omni_lite.train import Loop, hear_groups, masked
from omni_lite.vocab import EAR_RATE
from omni_lite.weights import (
    SMOLLM2_WHEEL,
    load_smollm2,
    load_whisper,
    pack_int,
    save_safetensors,
    sha256_of,
    write_card,
)

MARKS = ("<!-- smollm2 -->", "<!-- /smollm2 -->")
BITS = 6                                     # of a committed weight
HELD_OUT = tuple(f"{split}_{name}" for split in ("test", "dev") for name in ("facts", "voices", "both", "phrasings"))


@dataclass(frozen=True)
class ListenPlan:
    """Phase 1a of an LLM that stays as it is.

    hearing_steps, hearing_peak, hearing_positions: of the stage "words", in which the LLM need not run
    hearing_restarts: where its schedule begins anew, see `train.round_of`
    hearing_masked: share of its clips of which the ears get less than Whisper heard, see `train.masked`
    steps, peak, end, positions: of the stage "adapter"; positions in a batch, padding included: about 20 clips
    answers_from:  share of the steps after which answers join the transcripts: who cannot hear cannot answer
    answers:       share of the batches that are answers from then on
    answer_tokens: of the LLM's answers that are kept; its first sentence says what it has to say
    """

    hearing_steps: int = 1600
    hearing_restarts: tuple[int, ...] = (1000,)
    hearing_peak: float = 2e-3
    hearing_positions: int = 8192
    hearing_masked: float = 1.0
    steps: int = 300
    peak: float = 2e-4
    end: float = 1e-6
    positions: int = 1024
    answers_from: float = 0.0
    answers: float = 0.5
    answer_tokens: int = 32


# The committed ears heard no masks in the first round. They stand on hearing alone: going on through the LLM, some 300
# steps, has not been measured yet.
PLAN = ListenPlan(steps=0)


# --- what is trained on -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One clip of the feature store and what the LLM is to continue with; `positions` is the cost."""

    clip: int
    target: tuple[int, ...]
    positions: int


def training_rows(data: Path) -> list[Row]:
    """Clip i of the feature store is row i: the questions, the sentences for the ears alone, the answer voice."""
    rows = read_rows(shards(data, "train") + extras(data, "heard"), sound=False)
    return rows + [Row("train", len(rows) + i, text, "") for i, text in enumerate(train_answers(data))]


def held_out(data: Path) -> set[str]:
    """The words of every question of the test and development sets: none of them is trained on."""
    return {words(row.question) for name in HELD_OUT for row in read_rows(shards(data, name), sound=False)}


def batches(examples: Sequence[Example], positions: int, seed: str) -> Iterator[list[Example]]:
    """Epoch after epoch in batches of like length, in another order each time; the same for the same seed.

    positions: the batch times its longest example stays below this, so every step costs alike
    """
    for epoch in range(1_000_000):
        dice = random.Random(f"{seed} {epoch}")
        mixed = sorted(dice.sample(examples, len(examples)), key=lambda example: example.positions)
        groups: list[list[Example]] = [[]]
        for example in mixed:
            if groups[-1] and (len(groups[-1]) + 1) * example.positions > positions:
                groups.append([])
            groups[-1].append(example)
        dice.shuffle(groups)
        yield from groups


def steps_of(examples: dict[str, list[Example]], plan: ListenPlan) -> Iterator[tuple[str, list[Example]]]:
    """(chat, batch) of step 0, 1, 2 ...: it depends on the step's number alone, so a killed run goes on exactly."""
    dice = random.Random("steps")
    piles = {chat: batches(some, plan.positions, chat) for chat, some in examples.items() if some}
    for step in range(plan.steps):
        answers = dice.random() < plan.answers and step >= plan.answers_from * plan.steps
        yield (chat := "answer" if answers and "answer" in piles else "transcribe"), next(piles[chat])


def gather(store: FeatureStore, batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Features (B, T, D) float32 of the batch's clips, zeros after each one's length (B,)."""
    clips = [store[example.clip].float() for example in batch]
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


def train_words(listener: Listener, examples: Sequence[Example], store: FeatureStore, run: Path,
                plan: ListenPlan = PLAN, say: Callable[[str], None] = print) -> None:
    """Teach the adapter which token each position sounds like. The LLM lends its table of embeddings, no more."""
    stream, position = batches(examples, plan.hearing_positions, "words"), 0

    def losses(step: int) -> dict[str, Tensor]:
        nonlocal position
        batch = next(islice(stream, step - position, None))                   # after a restart: skip what is done
        position = step + 1
        features, lengths = gather(store, batch)
        features = masked(features, lengths, plan.hearing_masked)
        with mixed_precision():
            return {"loss": listener.hearing_loss(features, lengths, [example.target for example in batch])}

    listener.train()
    matrices = {cast(torch.nn.Parameter, module.weight) for module in listener.adapter.modules()
                if isinstance(module, torch.nn.Linear)}
    Loop("words", listener.adapter, list(listener.adapter.parameters()), plan.hearing_steps, plan.hearing_peak,
         plan.end, run, decay=0.0, turned=matrices, restarts=plan.hearing_restarts, say=say).run(losses)
    listener.eval()


def train_adapter(listener: Listener, examples: dict[str, list[Example]], store: FeatureStore, run: Path,
                  plan: ListenPlan = PLAN, say: Callable[[str], None] = print) -> None:
    """Train the adapter alone, and make sure that the LLM is the same to the last bit afterwards."""
    before = digest(listener.lm)
    stream, position = steps_of(examples, plan), 0

    def losses(step: int) -> dict[str, Tensor]:
        nonlocal position
        chat, batch = next(islice(stream, step - position, None))            # after a restart: skip what is done
        position = step + 1
        features, lengths = gather(store, batch)
        # As in `train_phase`: short sequences, for which plain attention is faster on a CPU.
        with mixed_precision(), sdpa_kernel(SDPBackend.MATH):
            return {"loss": listener.loss(chat, features, lengths, [example.target for example in batch])}

    listener.train()
    Loop("adapter", listener.adapter, list(listener.adapter.parameters()), plan.steps, plan.peak, plan.end, run,
         decay=0.0, say=say).run(losses)
    listener.eval()
    if digest(listener.lm) != before:
        raise AssertionError("Training the adapter changed the LLM: this is a bug of the loop.")


# --- stages -----------------------------------------------------------------------------------------


def answers_file(run: Path, listener: Listener, plan: ListenPlan) -> Path:
    """Where the LLM's answers are kept: another LLM, chat or length has another file."""
    chat = json.dumps([listener.lm.num_parameters(), listener.chats["answer"], plan.answer_tokens])
    return run / f"answers-{hashlib.sha256(chat.encode()).hexdigest()[:8]}.jsonl"


def read_answers(path: Path) -> dict[str, list[int]]:
    """question -> token ids of the answer; a line that a kill cut short is left out."""
    out = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        out[entry["question"]] = entry["ids"]
    return out


@torch.no_grad()
def stage_answers(listener: Listener, data: Path, run: Path, plan: ListenPlan, say: Callable[[str], None],
                  batch: int = 48) -> None:
    """The LLM's own greedy answer to each typed question, in batches of equal length, one JSON line each.

    ids: with the end where the answer ended within `plan.answer_tokens`
    """
    path = answers_file(run, listener, plan)
    done = read_answers(path)
    rows = training_rows(data)
    todo: dict[int, list[tuple[str, list[int]]]] = {}
    for question in dict.fromkeys(row.question for row in rows if row.answer and row.question not in done):
        ids = listener.ids(question)
        todo.setdefault(len(ids), []).append((question, ids))
    groups = [some[i : i + batch] for some in todo.values() for i in range(0, len(some), batch)]
    total, made, began, shown = sum(map(len, groups)), 0, time.time(), time.time()
    with open(path, "a", encoding="utf-8") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        for group in groups:
            middle = listener.embed([i for _, ids in group for i in ids]).view(len(group), -1, listener.adapter.width)
            said = torch.stack(list(listener.greedy("answer", middle, plan.answer_tokens)), dim=1).tolist()
            for (question, _), ids in zip(group, said, strict=True):
                ids = ids[: ids.index(listener.end) + 1] if listener.end in ids else ids
                file.write(json.dumps(dict(question=question, ids=ids, text=listener.tokenizer.decode(ids))) + "\n")
            file.flush()
            made += len(group)
            if time.time() - shown > 15 or made == total:
                left = (time.time() - began) / made * (total - made)
                say(f"answers  {made}/{total}  {left / 60:.1f} min left")
                shown = time.time()


def features_file(run: Path, clips: int) -> Path:
    """The lite recipe's features of the same clips where they are there, else this run's own."""
    shared = run.parent / "lite" / "features.f16"
    if shared.exists() and len(FeatureStore(shared, SMOLLM2.ear.width)) == clips:
        return shared
    return run / "features.f16"


def stage_features(data: Path, run: Path, say: Callable[[str], None]) -> None:
    """Whisper features of every training clip, augmented."""
    target = features_file(run, total := len(training_rows(data)))
    if not target.exists():
        ears = Ears.from_pretrained(SMOLLM2.ear.whisper)
        store_features(target, hear_groups(ears, training_clips(data), total, say=say))


def make_examples(listener: Listener, rows: Sequence[Row], store: FeatureStore, answers: dict[str, list[int]],
                  held: set[str]) -> dict[str, list[Example]]:
    """Every clip with its transcript, and every question with the LLM's own answer; nothing that is held out."""
    out: dict[str, list[Example]] = {chat: [] for chat in listener.chats}
    for clip, row in enumerate(rows):
        if words(row.question) in held:
            continue
        said = listener.ids(row.question)
        targets = {"transcribe": [*said, listener.end]}
        if row.answer and row.question in answers:
            targets["answer"] = answers[row.question]
        for chat, target in targets.items():
            positions = len(said) + len(listener.chats[chat][1]) + len(target)
            out[chat].append(Example(clip, tuple(target), positions))
    return out


def words_to_hear(listener: Listener, rows: Sequence[Row], store: FeatureStore, held: set[str]) -> list[Example]:
    """Every clip with the tokens that are said in it, as the LLM writes them; nothing that is held out."""
    often = how_often([row.voice for row in rows])
    return [Example(clip, tuple(listener.ids(row.question)), listener.adapter.num_positions(store.length(clip)))
            for clip, row in enumerate(rows) if words(row.question) not in held for _ in range(often[clip])]


def heard_tokens(tokenizer: Any, rows: Sequence[Row]) -> tuple[int, ...]:
    """Ids of all tokens in the training texts, in order."""
    texts = list({row.question for row in rows})
    return tuple(sorted({token for ids in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in ids}))


def stage_words(listener: Listener, data: Path, run: Path, plan: ListenPlan, say: Callable[[str], None]) -> None:
    """Phase 1a without the LLM."""
    rows = training_rows(data)
    store = feature_store(listener, run, rows)
    train_words(listener, words_to_hear(listener, rows, store, held_out(data)), store, run, plan, say)


def feature_store(listener: Listener, run: Path, rows: Sequence[Row]) -> FeatureStore:
    """The features of these rows, clip by clip."""
    store = FeatureStore(features_file(run, len(rows)), listener.config.ear.width)
    if len(store) != len(rows):
        raise ValueError(f"{store.path} is of other data: delete it, it will be made again.")
    return store


def stage_adapter(listener: Listener, data: Path, run: Path, out: Path, plan: ListenPlan,
                  say: Callable[[str], None]) -> None:
    """Phase 1a through the LLM; the adapter is kept as whole numbers with a scale a row."""
    rows = training_rows(data)
    store = feature_store(listener, run, rows)
    answers = read_answers(answers_file(run, listener, plan))
    examples = make_examples(listener, rows, store, answers, held_out(data))
    say("adapter: " + ", ".join(f"{len(some)} clips to {chat}" for chat, some in examples.items()))
    train_adapter(listener, examples, store, run, plan, say)
    save_adapter(listener, out)


def save_adapter(listener: Listener, out: Path) -> None:
    """What `Listener.load` reads."""
    with atomic_write(out / CONFIG) as temporary:
        temporary.write_text(json.dumps(listener.config.to_dict(), indent=2) + "\n", encoding="utf-8")
    disown(out / ADAPTER)
    save_safetensors(out / ADAPTER, pack_int(listener.adapter.state_dict(), BITS))


def train_smollm2(data: Path, run: Path, out: Path | None, only: str | None) -> None:
    """All stages in order; finished ones are skipped, so a killed run is simply started again."""
    out = out or CHECKPOINTS / SMOLLM2.name
    names = ("features", "words", "answers", "adapter")
    if only is not None and only not in names:
        raise ValueError(f"There is no stage {only!r}: choose one of {', '.join(names)}.")
    if (out / ADAPTER).exists():
        print(f"{out / ADAPTER} is trained already: remove it to train it anew.")
        return
    shards(data, "train")                    # before anything is loaded: is there data at all?
    lm, tokenizer = load_smollm2()
    run.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    listener = Listener(lm, tokenizer, replace(SMOLLM2, words=heard_tokens(tokenizer, training_rows(data))))
    with open(run / "log.txt", "a", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, flush=True)
            log.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
            log.flush()

        stages: dict[str, Callable[[], None]] = {
            "features": lambda: stage_features(data, run, say),
            "words": lambda: stage_words(listener, data, run, PLAN, say),
            "answers": lambda: stage_answers(listener, data, run, PLAN, say),
            "adapter": lambda: stage_adapter(listener, data, run, out, PLAN, say)}
        chosen = [only] if only else [name for name in names if name != "answers" or PLAN.steps]
        for name in ["words", "adapter"] if only == "adapter" else chosen:    # the adapter goes on from words.pt
            began = time.time()
            stages[name]()
            if time.time() - began > 1:
                say(f"{name}: done after {(time.time() - began) / 60:.1f} min")
                note_time(run, name, time.time() - began)


# --- are two answers the same? -------------------------------------------------------------------------

SMALL_WORDS = frozenset(
    "a an the is are was were be been am do does did have has had it its this that these those of in on at to for from "
    "by with as and or so than then there here i you he she we they me my your his her our their can could will would "
    "should may might just also very which who whom what when where how s".split())
NUMBERS = frozenset(words(" ".join(map(str, [*range(21), *range(30, 100, 10), 100, 1000]))).split())
DENIALS = frozenset("no not never cannot cant dont doesnt isnt arent wasnt wont none neither nor nothing".split())
ENOUGH = 0.6


def content(text: str) -> set[str]:
    """The words that say something: no small words, plurals as singulars.

    "There are 7 days in the weeks." -> {"seven", "day", "week"}
    """
    return {re.sub(r"(?<=[a-z]{3})s$", "", word) for word in words(text).split() if word not in SMALL_WORDS}


def names(text: str) -> set[str]:
    """Words with a capital letter inside a sentence, as `content` writes them."""
    found = re.findall(r"(?<=[a-z,;:] )[A-Z][a-z]+", text)
    return content(" ".join(found))


def same_content(question: str, one: str, other: str) -> bool:
    """Whether two answers to a question say the same, by a rule that anybody can check by hand.

    Equal after `words`; or all of
        1. the same numbers, and both or neither deny;
        2. each name in the middle of one's sentence is in the other or in the question;
        3. of the words that are not already in the question, F1 >= 0.6.

    What the question gave does not count: "The color of snow is white." and "The color of snow is blue."
    share all words but the one that answers.
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
    """`count` rows with distinct questions, one of each skill in turn."""
    by_skill: dict[str, list[Row]] = {}
    for row in {words(row.question): row for row in reversed(rows)}.values():
        by_skill.setdefault(row.skill, []).append(row)
    out: list[Row] = []
    while len(out) < count and any(by_skill.values()):
        out += [some.pop() for _, some in sorted(by_skill.items()) if some]
    return out[:count]


def transcript_error(listener: Listener, whisper: Whisper, rows: Sequence[Row]) -> dict:
    """WER of what the LLM is given as heard, and of Whisper's own transcripts of the same clips."""
    waves = [row.question_wav for row in rows if row.question_wav is not None]
    wanted = [row.question for row in rows]
    heard = [listener.hear(wave) for wave in waves]
    theirs = transcribe(whisper, waves, EAR_RATE)
    wrong = [dict(wanted=w, model=h, whisper=t) for w, h, t in zip(wanted, heard, theirs, strict=True)
             if words(w) != words(h)]
    return dict(clips=len(rows), wer=round(wer(wanted, heard), 2), whisper_wer=round(wer(wanted, theirs), 2),
                wrong=wrong)


def agreement(listener: Listener, whisper: Whisper, rows: Sequence[Row]) -> dict:
    """The LLM's answers to spoken questions against its own to the same ones typed: the first 32 tokens of each.

    Beside it, as a yardstick, Whisper's transcript typed into the LLM; and by chance: the answer to the next
    question of the same skill in the place of the right one, which a good measure calls different.
    """
    waves = [row.question_wav for row in rows if row.question_wav is not None]
    questions = [row.question for row in rows]
    limit = PLAN.answer_tokens
    typed = [listener.answer(question, limit=limit) for question in questions]
    spoken = [listener.answer(wave, limit=limit) for wave in waves]
    cascade = [listener.answer(text or "?", limit=limit) for text in transcribe(whisper, waves, EAR_RATE)]
    others = {row.question: some[(i + 1) % len(some)] for some in
              ([r for r in rows if r.skill == skill] for skill in sorted({row.skill for row in rows}))
              for i, row in enumerate(some)}
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
    """What transformers' own `generate` makes of chats, without any of this project's code."""
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
    """Every figure of the card on the committed adapter; prints a table, writes the card.

    sets: "test" for the card; "dev" while developing, which leaves the card alone
    """
    folder = CHECKPOINTS / SMOLLM2.name
    rows = {name: read_rows(shards(data, f"{sets}_{name}")) for name in ("both", "voices")}
    asked = {words(row.question) for row in training_rows(data)}
    unseen = evenly([row for some in rows.values() for row in some if words(row.question) not in asked], 100)[:clips]
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
        details.write_text(json.dumps(dict(figures=figures, **out), indent=1, ensure_ascii=False))
    if sets == "test":
        counts = dict(transcript=len(rows["both"][:clips]), answers=len(unseen))
        write_card(folder, card(data, folder, figures, before[0]) | dict(clips=counts))
        quote_in_readme(ROOT / "README.md", figures, MARKS)


def card(data: Path, folder: Path, figures: dict[str, Any], lm: str) -> dict:
    """What this adapter is: how made, from what, for which LLM, and how good.

    lm: digest of the LLM's parameters
    """
    digests = hashlib.sha256("".join(sha256_of(path) for path in sorted(data.glob("*.parquet"))).encode())
    minutes = ROOT / "runs" / SMOLLM2.name / "minutes.json"
    return dict(
        model="omni_lite: an ASR adapter through which SmolLM2-135M-Instruct, frozen, hears",
        commands=["make data", "make smollm2", "python -m omni_lite train --preset smollm2",
                  "python -m omni_lite evaluate --preset smollm2"],
        date=date.today().isoformat(),
        seed=0,
        data_sha256=digests.hexdigest(),
        lm=dict(wheel=SMOLLM2_WHEEL, parameters_sha256=lm),
        hardware=f"{platform.machine()}, {torch.get_num_threads()} cores, torch {torch.__version__}",
        minutes=json.loads(minutes.read_text()) if minutes.exists() else {},
        plan=asdict(PLAN),
        figures=figures,
        sha256={path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))},
        licence="MIT; made for SmolLM2-135M-Instruct (Apache-2.0) with Whisper tiny.en (MIT) and the voices of the set",
    )
