"""Figures: word error rates, exact answers, latency, what text training left behind.

Every figure is measured on held-out data by a committed command (`python -m omni_lite evaluate`)
and lands in the model's card. The listener is the whole of Whisper tiny.en, whose decoder the model never
uses; in training it had a part (by_ear.py, preference.py), so `benchmarks/listener.py` asks another one as well.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import jiwer
import torch
from torch import Tensor
from whisper.audio import N_FRAMES, pad_or_trim
from whisper.decoding import DecodingOptions, decode
from whisper.model import Whisper

from omni_lite.assistant import Assistant, Reply
from omni_lite.audio import log_mel, to_mono_rate
from omni_lite.codec import LiteSNAC, Snac
from omni_lite.data import Row
from omni_lite.precision import mixed_precision
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE, EAR_RATE

TOKENS_A_SECOND, MARGIN = 10, 8              # of Whisper's transcripts: more than anybody says
LONGEST = 224                                # tokens of one window, Whisper's own limit

# --- words ------------------------------------------------------------------------------------

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen").split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
SIGNS = {"+": " plus ", "×": " times ", "*": " times ", "=": " is ", "&": " and ", "°": " degrees ", "%": " percent "}
SPELLINGS = {"grey": "gray", "colour": "color", "centre": "center", "favourite": "favorite", "ok": "okay",
             "kiev": "kyiv", "centimetres": "centimeters", "millimetres": "millimeters", "metre": "meter"}


def number_words(n: int) -> str:
    """0 .. 999,999 in words, without "and": 144 -> "one hundred forty four"."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            return f"{number_words(n // size)} {name}" + (f" {number_words(rest)}" if rest else "")
    raise AssertionError(n)


def words(text: str) -> str:
    """What was said, whatever way it was written: lower case, numerals as words, no punctuation.

    "Six plus 8 = 14." -> "six plus eight is fourteen";  "C, A, T" and "C-A-T" -> "cat"
    """
    text = text.lower().replace("’", "'")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\d+(?:\s*[-–]\s*\d+){2,}", lambda m: re.sub("[-–]", " ", m.group()), text)   # "1-2-3": counting
    text = re.sub(r"(?<=\d)\s*[-−–]\s*(?=\d)", " minus ", text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", " times ", text)
    text = re.sub(r"\$(\d+)", r"\1 dollars", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"\d{1,6}", lambda m: f" {number_words(int(m.group()))} ", text)
    text = re.sub(r"(?<=hundred) and(?= )", "", text)
    text = re.sub(r"[^a-zà-ÿ]+", " ", text.replace("'", ""))
    text = re.sub(r"\b(?:[a-z] )+[a-z]\b", lambda m: m.group().replace(" ", ""), text)   # spelled letters
    return " ".join(SPELLINGS.get(word, word) for word in text.split())


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate in percent, over all words of all sentences, after `words`."""
    pairs = [(words(r), words(h)) for r, h in zip(references, hypotheses, strict=True)]
    pairs = [(r, h) for r, h in pairs if r]
    if not pairs:
        raise ValueError("A word error rate needs at least one reference with a word in it.")
    return 100 * jiwer.wer([r for r, _ in pairs], [h for _, h in pairs])


# --- the listener -------------------------------------------------------------------------------


@torch.inference_mode()
def transcribe(whisper: Whisper, waves: Sequence[Tensor], rate: int, group: int = 8) -> list[str]:
    """Greedy transcripts by Whisper, each wave padded to its usual 30 s window.

    Whisper may fall into a loop and repeat a word until it has no more room, on real speech and on babble.
    Nobody says more than `TOKENS_A_SECOND`: a transcript ends there, and a loop counts as what fits.

    waves: (N,) float32 at `rate`
    """
    out = []
    for first in range(0, len(waves), group):
        some = waves[first : first + group]
        room = MARGIN + math.ceil(TOKENS_A_SECOND * max(map(len, some)) / rate)
        options = DecodingOptions(language="en", without_timestamps=True, fp16=False, beam_size=None,
                                  sample_len=min(room, LONGEST))
        mels = [pad_or_trim(log_mel(to_mono_rate(wave, rate, EAR_RATE), padding=N_FRAMES * 160), N_FRAMES)
                for wave in some]
        with mixed_precision():
            memory = whisper.encoder(torch.stack(mels)).float()
        out += [result.text.strip() for result in decode(whisper, memory, options)]
    return out


# --- figures ------------------------------------------------------------------------------------


def shares(rows: Sequence[Row], right: Sequence[bool]) -> dict[str, float]:
    """Percent right for each skill, then for each engine of the question's voice."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for row, ok in zip(rows, right, strict=True):
        groups[row.skill].append(ok)
        groups["voice " + row.voice.split(":")[0]].append(ok)
    return {name: round(100 * sum(oks) / len(oks), 1) for name, oks in sorted(groups.items())}


def percent(right: Iterable[bool]) -> float:
    """Share of True, in percent."""
    marks = list(right)
    return round(100 * sum(marks) / len(marks), 2)


def answers_to(assistant: Assistant, rows: Sequence[Row], task: Task,
               say: Callable[[str], None] = print, seed: int = 0) -> list[Reply]:
    """The model's replies to each row's question, heard or read as the task wants; `seed` is the voice's."""
    out = []
    for i, row in enumerate(rows):
        question = row.question_wav if task.hears else row.question
        assert question is not None
        out.append(assistant.answer(question, task, seed=seed))
        if (i + 1) % 100 == 0:
            say(f"{task}  {i + 1}/{len(rows)}")
    return out


def exact_answers(assistant: Assistant, rows: Sequence[Row], task: Task = Task.A1T2,
                  say: Callable[[str], None] = print) -> dict:
    """Exact text of the answer, in percent; by skill and voice; the wrong ones in full."""
    replies = answers_to(assistant, rows, task, say)
    right = [reply.text == row.answer for reply, row in zip(replies, rows, strict=True)]
    wrong = [dict(question=row.question, voice=row.voice, wanted=row.answer, said=reply.text)
             for row, reply, ok in zip(rows, replies, right, strict=True) if not ok]
    return dict(clips=len(rows), exact=percent(right), by=shares(rows, right), wrong=wrong)


def same_text(assistant: Assistant, rows: Sequence[Row], precision: str = "int8",
              say: Callable[[str], None] = print) -> dict:
    """Answers whose whole text is the same from the fast path at `precision` as from this assistant, in percent."""
    fast = Assistant(assistant.ears, assistant.model, assistant.codec, assistant.tokenizer).faster(precision)
    pairs = list(zip(*(answers_to(one, rows, Task.A1T2, say) for one in (assistant, fast)), strict=True))
    different = [dict(plain=plain.text, quick=quick.text) for plain, quick in pairs if plain.text != quick.text]
    return dict(clips=len(rows), same=percent(plain.text == quick.text for plain, quick in pairs), different=different)


def check_seeds(seeds: int) -> None:
    """ValueError of one sentence where nothing would be said."""
    if seeds < 1:
        raise ValueError(f"{seeds} seeds say nothing: an answer is said at least once.")


def transcript_error(assistant: Assistant, whisper: Whisper, rows: Sequence[Row],
                     say: Callable[[str], None] = print) -> dict:
    """WER of the model's transcripts (A1T1) and of Whisper's own, on the same clips."""
    heard = [reply.text for reply in answers_to(assistant, rows, Task.A1T1, say)]
    theirs = transcribe(whisper, [row.question_wav for row in rows if row.question_wav is not None], EAR_RATE)
    wanted = [row.question for row in rows]
    wrong = [dict(wanted=w, model=h, whisper=t) for w, h, t in zip(wanted, heard, theirs, strict=True)
             if words(w) != words(h)]
    return dict(clips=len(rows), wer=round(wer(wanted, heard), 2), whisper_wer=round(wer(wanted, theirs), 2),
                wrong=wrong)


def spoken_error(assistant: Assistant, whisper: Whisper, rows: Sequence[Row],
                 say: Callable[[str], None] = print, seeds: int = 1) -> dict:
    """WER of the spoken answers, as Whisper hears them, against the model's own text; and the timing.

    seeds: how often each is said. The voice is drawn, and of 1,800 words another draw has a point more or less wrong
    """
    check_seeds(seeds)
    replies = [reply for seed in range(seeds) for reply in answers_to(assistant, rows, Task.A1A2, say, seed)]
    said = [reply for reply in replies if len(reply.wav_24k)]
    understood = iter(transcribe(whisper, [torch.from_numpy(reply.wav_24k) for reply in said], CODEC_RATE))
    heard = [next(understood) if len(reply.wav_24k) else "" for reply in replies]      # nothing of a silent answer
    texts = [reply.text for reply in replies]
    return dict(
        clips=len(rows),
        seeds=seeds,
        wer=round(wer(texts, heard), 2),
        wer_of_each_seed=[round(wer(texts[i : i + len(rows)], heard[i : i + len(rows)]), 2)
                          for i in range(0, len(texts), len(rows))],
        first_audio_ms=round(median(reply.first_audio_ms or 0 for reply in said), 1),
        rtf=round(sum(reply.total_ms for reply in said) / 1000 / sum(reply.audio_s for reply in said), 3),
        cut_off=sum(reply.reason == "length" for reply in replies),
        transcripts=[dict(text=t, heard=h) for t, h in zip(texts, heard, strict=True)],
    )


def codec_error(codec: LiteSNAC | Snac, whisper: Whisper, sentences: Sequence[tuple[str, Tensor]]) -> dict:
    """WER of speech that went through the codec, minus the WER of the same speech before.

    sentences: (text, (N,) float32 at 24 kHz), none of which the codec was trained on
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
