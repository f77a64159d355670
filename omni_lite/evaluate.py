"""Figures: word error rates, exact answers, latency. `python -m omni_lite evaluate` measures them on held-out data.

The listener is the whole of Whisper tiny.en: the model uses only its encoder. The training of the committed weights
used tiny.en too, so `benchmarks/listener.py` measures with a second recogniser.
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
from whisper.normalizers import EnglishTextNormalizer

from omni_lite.assistant import Assistant, Reply
from omni_lite.audio import log_mel, to_mono_rate
from omni_lite.data import Row
from omni_lite.precision import mixed_precision
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE, EAR_RATE

TOKENS_A_SECOND, MARGIN = 10, 8              # of Whisper's transcripts: faster than any speech
LONGEST = 224                                # tokens of one window, Whisper's own limit


# --- words ------------------------------------------------------------------------------------

NORMALIZE = EnglishTextNormalizer()
SIGNS = {"+": " plus ", "×": " times ", "*": " times ", "=": " is ", "’": "'"}
SPELLED = re.compile(r"(?<![\w'])[A-Za-z](?:[\s,.-]+[A-Za-z](?![\w']))+")


def words(text: str) -> str:
    """Normalize a text for comparison: Whisper's own normalizer and three more rules.

    Signs become words. Digits stand alone: the normalizer turns "one two three four" into "1234" but keeps
    "1, 2, 3, 4". Spelled letters are joined before it, since it reads a single "O" as a zero.

    "Six plus 8 = 14." -> "6 plus 8 is 1 4";  "C, A, T" and "C-A-T" -> "cat"

    Source: openai/whisper whisper/normalizers/english.py
    """
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", " times ", text)
    text = re.sub(r"(?<![\d-])(\d+)\s*[-−–]\s*(\d+)(?!\s*[-−–\d])", r"\1 minus \2", text)      # not "1-2-3"
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = SPELLED.sub(lambda m: re.sub("[^A-Za-z]", "", m.group()), text)
    text = re.sub(r"\bone\b", "1", NORMALIZE(text)).replace("+", " plus ").replace("-", " minus ")
    return " ".join(re.sub(r"\d", r" \g<0> ", text).split())


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
    """Greedy transcripts by Whisper, each wave padded to its 30 s window.

    Whisper sometimes repeats a word until it reaches its limit. `TOKENS_A_SECOND` ends such a transcript early.

    waves: (N,) float32 at `rate`
    """
    out = []
    for first in range(0, len(waves), group):
        batch = waves[first : first + group]
        room = MARGIN + math.ceil(TOKENS_A_SECOND * max(map(len, batch)) / rate)
        options = DecodingOptions(language="en", without_timestamps=True, fp16=False, beam_size=None,
                                  sample_len=min(room, LONGEST))
        mels = [pad_or_trim(log_mel(to_mono_rate(wave, rate, EAR_RATE), padding=N_FRAMES * 160), N_FRAMES)
                for wave in batch]
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
    """The model's reply to each row's question, spoken or written as the task needs; `seed` is the voice's."""
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
    """Percent of answers whose text is exact, overall and by skill and voice; the wrong ones in full."""
    replies = answers_to(assistant, rows, task, say)
    right = [reply.text == row.answer for reply, row in zip(replies, rows, strict=True)]
    wrong = [dict(question=row.question, voice=row.voice, wanted=row.answer, said=reply.text)
             for row, reply, ok in zip(rows, replies, right, strict=True) if not ok]
    return dict(clips=len(rows), exact=percent(right), by=shares(rows, right), wrong=wrong)


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
    """WER of Whisper's transcripts of the spoken answers against the model's own text, and the timing.

    seeds: how often each answer is said: the voice is sampled, and over 1,800 words the WER varies by a point
    """
    replies = [reply for seed in range(seeds) for reply in answers_to(assistant, rows, Task.A1A2, say, seed)]
    said = [reply for reply in replies if len(reply.wav_24k)]
    understood = iter(transcribe(whisper, [torch.from_numpy(reply.wav_24k) for reply in said], CODEC_RATE))
    heard = [next(understood) if len(reply.wav_24k) else "" for reply in replies]      # "" for a silent answer
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
