"""The checks of notebooks 00 to 03: right for the right answer, a fitting sentence for typical wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F

from omni_lite.codec import frames_from_levels
from omni_lite.course import checks
from omni_lite.hear import num_features
from omni_lite.streams import Task, prompt, undelay_streams

NAMES = {
    "frames_needed": "frames needed", "real_time_factor": "real-time factor", "first_sound": "first sound",
    "cut_windows": "cut windows", "positions_of": "positions of a question", "mix_at_snr": "mix at a chosen SNR",
    "centred_cosine": "centred cosine", "bits_per_second": "bits per second", "weave_frames": "weave the frames",
    "nearest_entry": "nearest entry", "entropy_bits": "entropy in bits", "steps_of": "steps of an answer",
    "undelay": "undelay", "layer_shift": "layer shift", "transcript_prompt": "the prompt of a transcript",
}


def last_line(capsys):
    return capsys.readouterr().out.strip().splitlines()[-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_is_not_tried_and_broken_code_is_told(name, capsys):
    check = getattr(checks, name)
    assert check(None) is None
    assert last_line(capsys) == f"{NAMES[name]}: not tried yet"
    assert check(lambda *_: 1 / 0) is False
    assert "ZeroDivisionError" in last_line(capsys)


# --- right answers, written otherwise than the checks write them ----------------------------------------


def first_sound(trace):
    for ms, made_s, _ in trace:
        if made_s > 0:
            return ms


def cut_windows(wav, size, hop):
    return torch.stack([wav[i : i + size] for i in range(0, len(wav) - size + 1, hop)])


def positions_of(samples):
    columns = min(samples + 3200, 480_000) // 160
    return math.ceil(math.ceil(columns / 2) / 4)


def mix(speech, noise, snr_db):
    noise = noise * (speech.norm() / noise.norm())
    return speech + noise / 10 ** (snr_db / 20)


def cosine(a, b, mean):
    a, b = a - mean, b - mean
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def weave(levels):
    coarse, middle, fine = levels
    return torch.stack([coarse, middle[:, 0::2], fine[:, 0::4], fine[:, 1::4], middle[:, 1::2], fine[:, 2::4],
                        fine[:, 3::4]], dim=1)


def nearest(vectors, codebook):
    return (F.normalize(vectors) @ F.normalize(codebook).T).argmax(dim=1)


def entropy(counts):
    p = counts[counts > 0] / counts.sum()
    return -(p * p.log2()).sum()


def shift(audio, text_size, audio_size):
    return audio + text_size + audio_size * torch.arange(7)[:, None]


def transcript(vocab, positions, text_end="asr", audio_end="pad_a", eot=True):
    text = [vocab.input_t, *[vocab.pad_t] * positions, *[vocab.eot] * eot, getattr(vocab, text_end)]
    audio = torch.tensor([vocab.input_a, *[vocab.pad_a] * positions, vocab.eoa, getattr(vocab, audio_end)])
    return torch.tensor(text), audio.expand(7, -1)


RIGHT = {
    "frames_needed": lambda seconds: -int(-seconds * 24_000 // 2048),
    "real_time_factor": lambda total_ms, audio_s: total_ms / (1000 * audio_s),
    "first_sound": first_sound,
    "cut_windows": cut_windows,
    "positions_of": positions_of,
    "mix_at_snr": mix,
    "centred_cosine": cosine,
    "bits_per_second": lambda codebook, tokens, samples, rate: tokens * math.log2(codebook) * rate / samples,
    "weave_frames": weave,
    "nearest_entry": nearest,
    "entropy_bits": entropy,
    "steps_of": lambda frames: (frames + 1, frames + 7, 7 * frames + 1),
    "undelay": lambda delayed: torch.stack([delayed[q, q + 1 : q + 1 + delayed.shape[1] - 7] for q in range(7)]),
    "layer_shift": shift,
    "transcript_prompt": transcript,
}


@pytest.mark.parametrize("name", NAMES)
def test_right_answers(name, capsys):
    assert getattr(checks, name)(RIGHT[name]) is True
    assert last_line(capsys) == f"{NAMES[name]}: right"


@pytest.mark.parametrize("name, library", [
    ("weave_frames", frames_from_levels),
    ("undelay", undelay_streams),
    ("positions_of", lambda samples: -(-num_features(samples) // 4)),
    ("transcript_prompt", lambda vocab, n: (prompt(vocab, Task.A1T1, positions=n).text,
                                            prompt(vocab, Task.A1T1, positions=n).audio)),
])
def test_the_library_is_right(name, library):
    assert getattr(checks, name)(library) is True


# --- wrong answers, and what the student is told ----------------------------------------------------------


def level_by_level(levels):
    coarse, middle, fine = levels
    return torch.stack([coarse, middle[:, 0::2], middle[:, 1::2], *[fine[:, i::4] for i in range(4)]], dim=1)


def first_ones(levels):
    coarse, middle, fine = levels
    T = coarse.shape[1]
    return torch.stack([coarse, middle[:, :T], fine[:, :T], fine[:, :T], middle[:, T:], *[fine[:, :T]] * 2], dim=1)


WRONG = [
    ("frames_needed", lambda seconds: int(seconds * 24_000 / 2048), "round up"),
    ("frames_needed", lambda seconds: seconds * 24_000 / 2048, "whole ones"),
    ("frames_needed", lambda seconds: int(seconds * 24_000 / 2048) + 1, "nothing is left over"),
    ("real_time_factor", lambda total_ms, audio_s: audio_s / (total_ms / 1000), "Upside down"),
    ("real_time_factor", lambda total_ms, audio_s: total_ms / audio_s, "milliseconds"),
    ("first_sound", lambda trace: trace[0][0], "first step of all"),
    ("first_sound", lambda trace: next(ms for ms, made_s, _ in trace if made_s > 0.1), "one step too late"),
    ("first_sound", lambda trace: 31.0, "give None"),
    ("cut_windows", lambda wav, size, hop: wav.unfold(0, size, hop)[:-1], "last window is missing"),
    ("cut_windows", lambda wav, size, hop: wav[: len(wav) // size * size].view(-1, size), "do not overlap"),
    ("positions_of", lambda samples: math.ceil(math.ceil(samples / 160 / 2) / 4), "0.2 s of silence"),
    ("positions_of", lambda samples: (samples + 3200) // 160 // 2 // 4, "round up"),
    ("positions_of", lambda samples: math.ceil(math.ceil((samples + 3200) // 160 / 2) / 4), "ends after 30 s"),
    ("mix_at_snr", lambda speech, noise, snr: mix(speech, noise, 2 * snr), "decibels measure power"),
    ("mix_at_snr", lambda speech, noise, snr: mix(speech, noise, -snr), "means less noise"),
    ("mix_at_snr", lambda speech, noise, snr: mix(speech, noise, snr) / 2, "keep the speech"),
    ("mix_at_snr", lambda speech, noise, snr: speech + noise * 10 ** (-snr / 20), "scale the noise to the power"),
    ("centred_cosine", lambda a, b, mean: torch.cosine_similarity(a, b, dim=-1), "subtract the mean"),
    ("centred_cosine", lambda a, b, mean: ((a - mean) * (b - mean)).sum(-1), "dot product"),
    ("centred_cosine", lambda a, b, mean: cosine(a, b, mean).mean(), "each time"),
    ("bits_per_second", lambda codebook, tokens, samples, rate: tokens * math.log2(codebook), "one frame"),
    ("bits_per_second", lambda codebook, tokens, samples, rate: tokens * math.log(codebook) * rate / samples, "log2"),
    ("weave_frames", level_by_level, "order follows time"),
    ("weave_frames", first_ones, "every second one"),
    ("nearest_entry", lambda vectors, codebook: torch.cdist(vectors, codebook).argmin(1), "smallest distance"),
    ("nearest_entry", lambda vectors, codebook: (vectors @ codebook.T).argmax(1), "favours long entries"),
    ("entropy_bits", lambda counts: -(counts / counts.sum() * (counts / counts.sum()).log2()).sum(), "0 * log 0"),
    ("entropy_bits", lambda counts: entropy(counts) * math.log(2), "natural logarithm"),
    ("entropy_bits", lambda counts: -entropy(counts), "sign"),
    ("steps_of", lambda frames: (frames, frames + 6, 7 * frames), "One step is missing"),
    ("steps_of", lambda frames: (frames + 1, frames + 8, 7 * frames + 1), "with the delay take"),
    ("undelay", lambda delayed: torch.stack([delayed[q].roll(-q - 1) for q in range(7)]), "whole frames"),
    ("undelay", lambda delayed: torch.stack([delayed[q, q : len(delayed.T) + q - 7] for q in range(7)]), "Off by one"),
    ("undelay", lambda delayed: delayed[:, 7:], "same steps from every stream"),
    ("layer_shift", lambda audio, text, size: audio + size * torch.arange(7)[:, None], "are text"),
    ("layer_shift", lambda audio, text, size: shift(audio, text, size) + size, "Stream 0 has the first band"),
    ("transcript_prompt", lambda vocab, n: transcript(vocab, n, text_end="answer_t"), "vocab.asr"),
    ("transcript_prompt", lambda vocab, n: transcript(vocab, n, audio_end="answer_a"), "stay silent"),
    ("transcript_prompt", lambda vocab, n: transcript(vocab, n, eot=False), "two after them"),
]


@pytest.mark.parametrize("name, wrong, hint", WRONG, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(WRONG)])
def test_wrong_answers(name, wrong, hint, capsys):
    assert getattr(checks, name)(wrong) is False
    said = last_line(capsys)
    assert said.startswith(f"{NAMES[name]}: not yet. ") and hint in said
