"""The students' checks: each takes what a student wrote, tries it, and says what is wrong in a sentence.

A check never raises for a wrong answer: a notebook must run to its end. It prints one line, and returns
True where the answer is right, False where it is wrong, None where nothing was tried (the stub is None).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omni_lite.vocab import CODEC_RATE, FRAME_SAMPLES, FRAME_SECONDS


class Wrong(Exception):
    """What a check finds, in a sentence to the student."""


def exercise(name: str) -> Callable[[Callable[..., None]], Callable[..., bool | None]]:
    """Turn a function that raises `Wrong` into a check that prints and never raises."""

    def wrap(check: Callable[..., None]) -> Callable[..., bool | None]:
        def run(attempt: Any, *more: Any) -> bool | None:
            if attempt is None:
                print(f"{name}: not tried yet")
                return None
            try:
                check(attempt, *more)
            except Wrong as reason:
                print(f"{name}: not yet. {reason}")
                return False
            except Exception as error:                # the student's own code broke
                print(f"{name}: not yet. Your code stopped with {type(error).__name__}: {error}")
                return False
            print(f"{name}: right")
            return True

        run.__name__, run.__doc__ = check.__name__, check.__doc__
        return run

    return wrap


def same(got: Any, wanted: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Raise `Wrong` unless a tensor has the wanted shape and values; say where it first differs."""
    if not isinstance(got, Tensor):
        raise Wrong(f"{what} should be a tensor, yours is {type(got).__name__}.")
    if got.shape != wanted.shape:
        raise Wrong(f"{what} should have shape {tuple(wanted.shape)}, yours has {tuple(got.shape)}.")
    off = ((got.double() - wanted.double()).abs() > tolerance).nonzero()
    if len(off):
        at = tuple(off[0].tolist())
        raise Wrong(f"{what} differs in {len(off)} of {wanted.numel()} places; at {at} it should be "
                    f"{wanted[at].item():.6g}, yours is {got[at].item():.6g}.")


def seeded(seed: int = 0) -> torch.Generator:
    """Random inputs that are the same for every student."""
    return torch.Generator().manual_seed(seed)


# --- notebook 00: start here ---


@exercise("frames needed")
def frames_needed(attempt: Callable[..., int]) -> None:
    """attempt(seconds) -> how many frames of 2048 samples hold so much sound at 24 kHz"""
    for seconds in (1.0, 0.5, 2.0, 32.0):
        exact = seconds * CODEC_RATE / FRAME_SAMPLES
        wanted, got = math.ceil(exact), attempt(seconds)
        if got == wanted:
            continue
        if got == math.floor(exact):
            raise Wrong(f"{seconds:g} s are {exact:.2f} frames, and {got} of them would cut the end off: a frame that "
                        "is only begun is needed too, so round up.")
        if isinstance(got, float) and abs(got - exact) < 1e-6:
            raise Wrong(f"{got:.2f} is no number of frames: the codec makes whole ones, so round up.")
        if got == wanted + 1:
            raise Wrong(f"{seconds:g} s are exactly {exact:g} frames: adding 1 is too much where nothing is left over.")
        raise Wrong(f"{seconds:g} s at {CODEC_RATE} samples a second are {seconds * CODEC_RATE:.0f} samples, so "
                    f"{wanted} frames of {FRAME_SAMPLES}; yours are {got!r}.")


@exercise("real-time factor")
def real_time_factor(attempt: Callable[..., float]) -> None:
    """attempt(total_ms, audio_s) -> time to make divided by time to play"""
    for total_ms, audio_s in ((500.0, 2.0), (3000.0, 1.5), (100.0, 4.0)):
        wanted, got = total_ms / 1000 / audio_s, float(attempt(total_ms, audio_s))
        if abs(got - wanted) <= 1e-6 * wanted:
            continue
        if abs(got - 1 / wanted) <= 1e-6 / wanted:
            raise Wrong("Upside down: the factor is the time to make over the time to play, so that below 1 keeps up.")
        if abs(got - 1000 * wanted) <= 1e-3 * wanted:
            raise Wrong("One of the two times is in milliseconds and the other in seconds: bring both to seconds "
                        "first.")
        raise Wrong(f"{total_ms:g} ms to make {audio_s:g} s of sound is a factor of {wanted:g}, yours is {got:g}.")


@exercise("first sound")
def first_sound(attempt: Callable[..., float | None]) -> None:
    """attempt(trace: [(ms, seconds of sound made so far, word)]) -> ms when the first sound stood ready, or None"""
    trace = [(12.0, 0.0, "I"), (20.0, 0.0, " am"), (31.0, 0.09, " well"), (40.0, 0.17, "."), (50.0, 0.26, "")]
    got = attempt(trace)
    if got == 12.0:
        raise Wrong("That is the first step of all, when no sound was made yet: look at the second entry of each step.")
    if got == 40.0:
        raise Wrong("That is one step too late: 0.09 s of sound are sound already, so ask for more than 0.")
    if got != 31.0:
        raise Wrong(f"In {trace} the first sound stood ready after 31.0 ms, yours says {got!r}.")
    if attempt(trace[:2]) is not None:
        raise Wrong("An answer without any sound has no first sound: give None for it.")


# --- notebook 01: hearing ---


@exercise("cut windows")
def cut_windows(attempt: Callable[..., Tensor]) -> None:
    """attempt(wav (N,), size, hop) -> (n, size): every window that fits, each `hop` samples after the one before"""
    for N, size, hop in ((10, 4, 2), (11, 4, 3), (400, 400, 160)):
        wav = torch.arange(float(N))
        wanted = wav.unfold(0, size, hop)
        got = attempt(wav, size, hop)
        if isinstance(got, Tensor) and got.dim() == 2 and got.shape[1] == size:
            if len(got) == len(wanted) - 1:
                raise Wrong(f"The last window is missing: {N} samples hold {len(wanted)} windows of {size} with a hop "
                            f"of {hop}, since the last one may end with the last sample.")
            if len(got) > 1 and torch.equal(got[1], wav[size : 2 * size]):
                raise Wrong("Your windows do not overlap: the next one starts `hop` samples later, not `size`.")
        same(got, wanted, f"The windows of {N} samples (size {size}, hop {hop})")


@exercise("positions of a question")
def positions_of(attempt: Callable[..., int]) -> None:
    """attempt(num_samples) -> positions of the language model that a question of so many samples takes"""
    from omni_lite.hear import num_features

    for samples in (16_000, 24_000, 40_000, 1_600, 480_000):
        wanted, got = math.ceil(num_features(samples) / 4), attempt(samples)
        if got == wanted:
            continue
        if got == math.ceil(math.ceil(samples / 160 / 2) / 4):
            raise Wrong(f"For {samples} samples yours are {got}: you left out the 0.2 s of silence (3,200 samples) "
                        "after the question.")
        if samples == 480_000:
            raise Wrong("Whisper's window ends after 30 s, silence included: a question of 30 s has 3,000 columns, not "
                        "3,020.")
        if got in (wanted - 1, num_features(samples) / 4):
            raise Wrong(f"For {samples} samples there are {num_features(samples)} features. In groups of four the last "
                        "group may be incomplete, and it counts: round up.")
        raise Wrong(f"{samples} samples and 3,200 of silence make {(samples + 3200) // 160} columns, half as many "
                    f"features, a quarter as many positions: {wanted}; yours are {got!r}.")


@exercise("mix at a chosen SNR")
def mix_at_snr(attempt: Callable[..., Tensor]) -> None:
    """attempt(speech (N,), noise (N,), snr_db) -> speech + scaled noise, so much quieter (in power) than the speech"""
    dice = seeded()
    speech, noise = 0.3 * torch.randn(4000, generator=dice), 2.0 * torch.randn(4000, generator=dice)
    for snr_db in (20.0, 6.0, -5.0):
        wanted = speech + noise * (speech.pow(2).mean() / noise.pow(2).mean()).sqrt() * 10 ** (-snr_db / 20)
        got = attempt(speech, noise, snr_db)
        if isinstance(got, Tensor) and got.shape == speech.shape:
            added = (got - speech).double()
            if added.abs().max() < 1e-9:
                raise Wrong("Nothing was added to the speech.")
            if torch.cosine_similarity(added, noise.double(), dim=0) < 0.999:
                raise Wrong("What you added is not the noise alone: leave the speech as it is and scale the noise.")
            found = float(10 * (speech.double().pow(2).mean() / added.pow(2).mean()).log10())
            if abs(found - 2 * snr_db) < 0.1:
                raise Wrong(f"Asked for {snr_db:g} dB, the mix has {found:.1f}: dB count power. An amplitude is scaled "
                            "by 10 ** (-snr_db / 20), not / 10.")
            if abs(found + snr_db) < 0.1:
                raise Wrong(f"Asked for {snr_db:g} dB, the mix has {found:.1f}: a higher ratio means less noise.")
            if abs(found - snr_db) > 0.1:
                raise Wrong(f"Asked for {snr_db:g} dB, the mix has {found:.1f} dB. Bring the noise to the power of the "
                            "speech first, then make it quieter.")
        same(got, wanted, f"The mix at {snr_db:g} dB", tolerance=1e-3)


@exercise("centred cosine")
def centred_cosine(attempt: Callable[..., Tensor]) -> None:
    """attempt(a (T, D), b (T, D), mean (D,)) -> (T,): cosine of a - mean and b - mean at every time"""
    dice = seeded()
    mean = 3 + torch.randn(6, generator=dice)
    a, b = mean + torch.randn(5, 6, generator=dice), mean + torch.randn(5, 6, generator=dice)
    wanted = torch.cosine_similarity(a - mean, b - mean, dim=-1)
    got = attempt(a, b, mean)
    if isinstance(got, Tensor) and got.shape == wanted.shape:
        if torch.allclose(got, torch.cosine_similarity(a, b, dim=-1), atol=1e-5):
            raise Wrong("You have not taken the mean away. All features point roughly where it points, so without that "
                        "everything is alike.")
        if torch.allclose(got, ((a - mean) * (b - mean)).sum(-1), atol=1e-5):
            raise Wrong("This is the dot product: divide it by both lengths, so that loud and quiet count alike.")
    if isinstance(got, Tensor) and got.dim() == 0 or isinstance(got, float):
        raise Wrong("One number for the whole clip hides where the two differ: give one for each time, shape (T,).")
    same(got, wanted, "The similarity")


# --- notebook 02: speaking ---


@exercise("bits per second")
def bits_per_second(attempt: Callable[..., float]) -> None:
    """attempt(codebook, tokens, samples, rate): entries, tokens a frame, samples a frame, samples a second -> bits/s"""
    for codebook, tokens, samples, rate in ((1024, 7, 2048, 24_000), (4096, 7, 2048, 24_000), (256, 4, 320, 16_000)):
        wanted, got = tokens * math.log2(codebook) * rate / samples, float(attempt(codebook, tokens, samples, rate))
        if abs(got - wanted) <= 1e-6 * wanted:
            continue
        reasons = {
            tokens * math.log(codebook) * rate / samples: "A choice among K entries takes log2(K) bits; you took the "
                                                          "natural logarithm.",
            tokens * math.log2(codebook): "These are the bits of one frame: how many frames are there in a second?",
            wanted / 8: "These are bytes: a byte has eight bits, and bits were asked for.",
            tokens * codebook * rate / samples: "K entries are told apart by log2(K) bits, not by K.",
            math.log2(codebook) * rate / samples: f"A frame has {tokens} tokens, not one.",
        }
        for value, reason in reasons.items():
            if abs(got - value) <= 1e-6 * value:
                raise Wrong(reason)
        raise Wrong(f"{tokens} tokens of {math.log2(codebook):g} bits, {rate / samples:.2f} times a second, are "
                    f"{wanted:.1f} bits a second; yours are {got:.1f}.")


@exercise("weave the frames")
def weave_frames(attempt: Callable[..., Tensor]) -> None:
    """attempt(levels: (B, T), (B, 2T), (B, 4T)) -> (B, 7, T) in the order c0 c1a c2a c2b c1b c2c c2d"""
    from omni_lite.codec import frames_from_levels

    B, T = 2, 3
    levels = [100 * (level + 1) + torch.arange(B * T * 2**level).view(B, -1) for level in range(3)]
    wanted, got = frames_from_levels(levels), attempt(levels)
    if isinstance(got, Tensor) and got.shape == wanted.shape and not torch.equal(got, wanted):
        by_level = [0, 1, 4, 2, 3, 5, 6]                      # all middle tokens before all fine ones
        if torch.equal(got, wanted[:, by_level]):
            raise Wrong("You put both middle tokens before the four fine ones. The frame goes on in time: the second "
                        "middle token comes after the two fine ones of the first half.")
        if torch.equal(got[:, 0], wanted[:, 0]) and torch.equal(got[:, 1], levels[1][:, :T]):
            raise Wrong("Stream 1 of frame t is token 2t of the middle level: take every second one, `[:, 0::2]`, not "
                        "the first T.")
    same(got, wanted, "The frames")


@exercise("nearest entry")
def nearest_entry(attempt: Callable[..., Tensor]) -> None:
    """attempt(vectors (n, C), codebook (K, C)) -> (n,) int64: the entry in the most similar direction"""
    dice = seeded()
    vectors, codebook = torch.randn(50, 4, generator=dice), torch.randn(30, 4, generator=dice)
    codebook *= torch.linspace(0.2, 3, 30)[:, None]           # so that the length of an entry would matter
    cosine = torch.nn.functional.normalize(vectors) @ torch.nn.functional.normalize(codebook).T
    got = attempt(vectors, codebook)
    if isinstance(got, Tensor) and got.shape == (50,) and not torch.equal(got, cosine.argmax(1)):
        if torch.equal(got, torch.cdist(vectors, codebook).argmin(1)):
            raise Wrong("You take the entry at the smallest distance. This codec compares directions: bring vectors "
                        "and entries to length 1 first.")
        if torch.equal(got, (vectors @ codebook.T).argmax(1)):
            raise Wrong("A plain dot product favours long entries: bring each entry to length 1 first.")
        if torch.equal(got, cosine.argmin(1)):
            raise Wrong("You take the entry in the opposite direction: the cosine should be largest.")
    same(got, cosine.argmax(1), "The entries")


@exercise("entropy in bits")
def entropy_bits(attempt: Callable[..., float]) -> None:
    """attempt(counts (K,) of how often each entry came) -> bits that a token carries on average"""
    for counts in ([8, 8, 8, 8], [4, 2, 1, 1], [5, 0, 5, 0, 0]):
        p = torch.tensor([c for c in counts if c]).double() / sum(counts)
        wanted, got = float(-(p * p.log2()).sum()), float(attempt(torch.tensor(counts)))
        if math.isnan(got):
            raise Wrong(f"For {counts} yours is not a number: 0 * log 0 counts as 0, so leave entries that never came "
                        "out of the sum.")
        if abs(got - wanted) < 1e-4:
            continue
        if abs(got - wanted * math.log(2)) < 1e-4:
            raise Wrong("That is the natural logarithm: bits want log2.")
        if abs(got + wanted) < 1e-4:
            raise Wrong("The sign: a logarithm of a share is negative, so the sum takes a minus.")
        raise Wrong(f"Counts of {counts} have an entropy of {wanted:.3f} bits, yours is {got:.3f}.")


# --- notebook 03: eight rows ---


@exercise("steps of an answer")
def steps_of(attempt: Callable[..., tuple[int, int, int]]) -> None:
    """attempt(frames) -> steps until the last frame is complete: without delay, with it, flattened; the text leads"""
    for frames in (1, 12, 100):
        wanted, got = (frames + 1, frames + 7, 7 * frames + 1), tuple(attempt(frames))
        if got == wanted:
            continue
        if got == (frames, frames + 6, 7 * frames):
            raise Wrong("One step is missing in each: step 0 says the first word only, since the text leads.")
        for name, mine, right in zip(("without delay", "with the delay", "flattened"), got, wanted, strict=False):
            if mine != right:
                raise Wrong(f"{frames} frames {name} take {right} steps, yours are {mine}: find the step at which the "
                            "last stream says the last frame, and count the steps up to it from step 0.")
        raise Wrong(f"Give three numbers, for {frames} frames {wanted}; yours are {got}.")


@exercise("undelay")
def undelay(attempt: Callable[..., Tensor]) -> None:
    """attempt(delayed (7, S)) -> (7, S - 7): the streams lined up into frames again"""
    from omni_lite.streams import delay_streams

    for T in (5, 1, 12):
        codes = torch.randint(0, 1000, (7, T), generator=seeded(T))
        delayed = delay_streams(codes, 1025)
        got = attempt(delayed)
        if isinstance(got, Tensor) and got.shape == delayed.shape:
            raise Wrong(f"{T + 7} steps hold {T} whole frames, not {T + 7}: cut what is padding.")
        if isinstance(got, Tensor) and got.shape == codes.shape and not torch.equal(got, codes):
            early = torch.stack([delayed[q, q : q + T] for q in range(7)])
            if torch.equal(got, early):
                raise Wrong("Off by one: stream q starts q + 1 steps after the text, so stream 0 starts at step 1.")
            if torch.equal(got, delayed[:, 7:]) or torch.equal(got, delayed[:, :T]):
                raise Wrong("You cut the same steps from every stream: each starts one step later than the one above.")
        same(got, codes, f"The frames (T = {T})")


@exercise("layer shift")
def layer_shift(attempt: Callable[..., Tensor]) -> None:
    """attempt(audio (7, S), text_size, audio_size) -> (7, S): ids in the one big table"""
    for text_size, audio_size in ((152_000, 4160), (2112, 1088)):
        audio = torch.randint(0, audio_size, (7, 4), generator=seeded())
        stream = torch.arange(7)[:, None]
        wanted = audio + text_size + audio_size * stream
        got = attempt(audio, text_size, audio_size)
        if isinstance(got, Tensor) and got.shape == wanted.shape and not torch.equal(got, wanted):
            if torch.equal(got, audio + audio_size * stream):
                raise Wrong(f"The first {text_size:,} rows of the table are text: the audio bands begin after them.")
            if torch.equal(got, wanted + audio_size):
                raise Wrong("Stream 0 has the first band: its ids are moved by text_size alone.")
            if torch.equal(got, audio + text_size):
                raise Wrong("All streams share one band here: stream q lies q * audio_size further on.")
        same(got, wanted, "The shifted ids")


@exercise("the prompt of a transcript")
def transcript_prompt(attempt: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """attempt(vocab, positions) -> text row (S,), audio rows (7, S) of the prompt of A1T1"""
    from omni_lite.streams import Task, prompt
    from omni_lite.vocab import Vocab

    for vocab, positions in ((Vocab(2048, 1024), 5), (Vocab(151_936, 4096), 2)):
        wanted = prompt(vocab, Task.A1T1, positions=positions)
        text, audio = attempt(vocab, positions)
        if isinstance(text, Tensor) and len(text) == len(wanted) - 1:
            raise Wrong(f"{positions} heard positions take {len(wanted)} steps, yours has {len(text)}: one step before "
                        "them, and two after them.")
        if isinstance(text, Tensor) and text.shape == wanted.text.shape:
            if int(text[-1]) == vocab.answer_t:
                raise Wrong("Your last text id asks for an answer: a transcript is asked for with `vocab.asr`.")
            if int(text[-2]) != vocab.eot:
                raise Wrong("The question ends in the text row too: `vocab.eot` comes before the last id.")
        if isinstance(audio, Tensor) and audio.shape == wanted.audio.shape and int(audio[0, -1]) == vocab.answer_a:
            raise Wrong("Your last audio ids ask for a spoken answer: a transcript is written, so the streams stay "
                        "silent (`vocab.pad_a`).")
        same(text, wanted.text, "The text row")
        same(audio, wanted.audio, "The audio rows")


# --- notebook 04: the model ---


def _tiny_model(seed: int = 0) -> Any:
    """An OmniModel of a few thousand weights, large enough to be wrong with."""
    from dataclasses import replace

    from omni_lite.config import LITE, EarConfig
    from omni_lite.model import OmniModel
    from omni_lite.vocab import Vocab

    trunk = LITE.trunk | dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    ear = EarConfig(whisper="tiny.en", width=8, stack=2, adapter="mlp", hidden=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OmniModel(replace(LITE, vocab=Vocab(40, 16), ear=ear, trunk=trunk, tts_blocks=1)).eval()
        for parameter in model.parameters():              # away from the small start, so that every part matters
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@exercise("mean of eight")
def mean_of_eight(attempt: Callable[..., Tensor]) -> None:
    """attempt(text_table (V, D), audio_table (7 * A, D), text_ids (B, S), audio_ids (B, 7, S)) -> (B, S, D)"""
    dice = seeded()
    text_table, audio_table = torch.randn(11, 5, generator=dice), torch.randn(7 * 6, 5, generator=dice)
    text_ids = torch.randint(0, 11, (2, 3), generator=dice)
    audio_ids = torch.randint(0, 6, (2, 7, 3), generator=dice)
    text = text_table[text_ids]
    audio = [audio_table[6 * q + audio_ids[:, q]] for q in range(7)]
    wanted = torch.stack([text, *audio]).mean(0)
    got = attempt(text_table, audio_table, text_ids, audio_ids)
    if isinstance(got, Tensor) and got.shape == wanted.shape:
        if torch.allclose(got, 8 * wanted, atol=1e-5):
            raise Wrong("This is the sum of the eight embeddings: divide it by eight.")
        unshifted = torch.stack([text, *[audio_table[audio_ids[:, q]] for q in range(7)]]).mean(0)
        if torch.allclose(got, unshifted, atol=1e-5):
            raise Wrong("All seven streams read the first band of the audio table: the ids of stream q begin at row "
                        "q * V_audio, and V_audio is a seventh of the table's rows (the layer shift).")
        if torch.allclose(got, (text + torch.stack(audio).mean(0)) / 2, atol=1e-5):
            raise Wrong("Here the text row counts as much as the seven audio rows together: each row counts an eighth.")
    same(got, wanted, "The input")


@exercise("parameters of the trunk")
def trunk_parameters(attempt: Callable[..., int]) -> None:
    """attempt(width, mlp, layers, heads, kv_heads) -> parameters of a Qwen2 trunk without embeddings"""
    for width, mlp, layers, heads, kv_heads in ((896, 4864, 24, 14, 2), (256, 512, 6, 4, 2), (64, 96, 1, 4, 4)):
        kv = width * kv_heads // heads
        biases, norms = width + 2 * kv, 2 * width
        block = 2 * width * width + 2 * width * kv + biases + 3 * width * mlp + norms
        wanted = layers * block + width
        got = attempt(width, mlp, layers, heads, kv_heads)
        reasons = {
            wanted - width: "The norm after the last block is missing: one weight for each of the D numbers.",
            wanted - layers * biases: "The biases of the queries, keys and values are missing: Qwen2 has them there, "
                                      "and nowhere else.",
            wanted - layers * norms: "Each block has two norms of D weights each.",
            wanted - layers * width * mlp: "The MLP has three matrices, not two: gate, up and down.",
            wanted + layers * width: "The output projection of the attention has no bias in Qwen2.",
            layers * (4 * width * width + 3 * width + 3 * width * mlp + norms) + width:
                "Keys and values are narrower than queries: kv_heads of the heads, so D * kv_heads / heads columns.",
        }
        if got != wanted:
            asked = f"For D = {width}, an MLP of {mlp}, {layers} blocks, {heads} heads and {kv_heads} kv heads"
            raise Wrong(reasons.get(got, f"{asked} there are {wanted:,} parameters, yours are {got:,}."))


@exercise("one step at a time")
def one_step_at_a_time(attempt: Callable[..., Tensor]) -> None:
    """attempt(model, x (1, S, D)) -> what the trunk says at every step (1, S, D), given one step a call"""
    model = _tiny_model()
    x = torch.randn(1, 7, 32, generator=seeded())
    with torch.no_grad():
        wanted = model.run(x)
        alone = torch.cat([model.run(x[:, s : s + 1]) for s in range(7)], dim=1)
        lengths: list[int] = []
        run = model.run

        def watched(x: Tensor, cache: Any = None) -> Tensor:
            lengths.append(x.shape[1])
            return run(x, cache)

        model.run = watched
        got = attempt(model, x)
    if max(lengths, default=0) > 1:
        raise Wrong(f"You gave the trunk {max(lengths)} steps in one call: give it one at a time, `x[:, s : s + 1]`.")
    if isinstance(got, Tensor) and got.shape == wanted.shape and torch.allclose(got, alone, atol=1e-4):
        raise Wrong("Every step saw only itself: make one `model.new_cache()` and give it to every call of "
                    "`model.run`.")
    same(got, wanted, "What the trunk says", tolerance=1e-4)
    if len(lengths) != 7:
        raise Wrong(f"Seven steps need seven calls of `model.run`, yours are {len(lengths)}.")


@exercise("where gradients go")
def where_gradients_go(attempt: dict[str, set[str]]) -> None:
    """attempt: for each of the five tasks, the names of the parts that its loss reaches"""
    always = {"text_embed", "audio_embed", "trunk"}
    wanted = {"A1A2": always | {"asr_adapter", "tts_adapter"}, "A1T2": always | {"asr_adapter"},
              "A1T1": always | {"asr_adapter"}, "T1A2": always | {"tts_adapter"}, "T1T2": always}
    if not isinstance(attempt, dict) or {str(task) for task in attempt} != set(wanted):
        raise Wrong(f"Give a dictionary with the five tasks as keys: {', '.join(wanted)}.")
    for task, parts in attempt.items():
        parts, right = set(parts), wanted[str(task)]
        if "audio_embed" in right - parts:
            raise Wrong(f"{task} also reaches audio_embed: a silent audio row is not nothing, it is the embedding of "
                        "pad_a, and it is added at every step.")
        if right - parts:
            raise Wrong(f"{task} also reaches {min(right - parts)}.")
        if "tts_adapter" in parts - right:
            raise Wrong(f"{task} has no spoken answer, so no loss comes through the tts_adapter.")
        if "asr_adapter" in parts - right:
            raise Wrong(f"{task} reads its question, so the asr_adapter is never called.")
        if parts - right:
            raise Wrong(f"{min(parts - right)} is no part that {task} reaches.")


# --- notebook 05: phase 1 ---


@exercise("stacking")
def stacking(attempt: Callable[..., Tensor]) -> None:
    """attempt(features (B, T, D), stack) -> (B, ceil(T / stack), stack * D), the last group filled up with zeros"""
    for B, T, D, stack in ((2, 8, 3, 4), (1, 7, 2, 4), (2, 5, 3, 2)):
        features = torch.arange(1.0, B * T * D + 1).view(B, T, D)
        S = -(-T // stack)
        filled = torch.zeros(B, S * stack, D)
        filled[:, :T] = features
        wanted = filled.reshape(B, S, stack * D)
        got = attempt(features, stack)
        if isinstance(got, Tensor) and got.shape == (B, T // stack, stack * D) != wanted.shape:
            raise Wrong(f"{T} features in groups of {stack} leave a rest, and yours is lost: the last group is filled "
                        "up with zeros. The end of the last word may be in it.")
        if isinstance(got, Tensor) and got.shape == wanted.shape:
            mixed = filled.view(B, S, stack, D).transpose(2, 3).reshape(B, S, stack * D)
            if torch.equal(got, mixed) and not torch.equal(mixed, wanted):
                raise Wrong("Within a position the features should lie one after the other, each whole; yours are "
                            "interleaved.")
        same(got, wanted, "The stacked features")


@exercise("freezing")
def freezing(attempt: Callable[..., Any]) -> None:
    """attempt(model, names) -> the parameters that may change; all others get no gradient"""
    from torch import nn

    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("ears", "trunk", "voice")})
    for names in (("trunk",), ("ears", "voice"), ("voice",)):
        got = attempt(model, names)
        for name, part in model.items():
            for parameter in part.parameters():
                if parameter.requires_grad and name not in names:
                    raise Wrong(f"With {names} to be trained, {name} still takes gradients (it may have been free in "
                                "the phase before): set requires_grad of every part, not only of some.")
                if not parameter.requires_grad and name in names:
                    raise Wrong(f"With {names} to be trained, {name} takes no gradients (it may have been frozen in "
                                "the phase before): thaw it.")
        try:
            given = {id(parameter) for parameter in got}
        except TypeError:
            raise Wrong("Return the list of parameters that the optimizer may change.") from None
        if given != {id(p) for p in model.parameters() if p.requires_grad}:
            raise Wrong(f"With {names} to be trained, return exactly the parameters of these parts, no more and no "
                        "fewer: they are what the optimizer gets.")


@exercise("whose turn it is")
def whose_turn(attempt: Callable[..., Tensor]) -> None:
    """attempt(sizes of the tokens in bytes, frames) -> (frames,) int64: the token spoken in the middle of each"""
    for sizes, frames in (([2, 6], 8), ([1, 3, 4], 10), ([5], 4), ([7, 1, 2, 3], 9)):
        ends = torch.tensor(sizes, dtype=torch.float64).cumsum(0) / sum(sizes)

        def turns(shift: float, ends: Tensor = ends, frames: int = frames) -> Tensor:
            now = (torch.arange(frames, dtype=torch.float64) + shift) / frames
            return torch.searchsorted(ends, now, right=True).clamp(max=len(ends) - 1)

        got = attempt(sizes, frames)
        if isinstance(got, Tensor) and got.shape == (frames,) and not torch.equal(got.long(), turns(0.5)):
            if torch.equal(got.long(), (torch.arange(frames) * len(sizes)) // frames):
                raise Wrong(f"You give every token the same time. A long word takes longer: share {frames} frames in "
                            f"the proportion of {sizes}.")
            if torch.equal(got.long(), turns(0.0)) or torch.equal(got.long(), turns(1.0)):
                raise Wrong("You look at an edge of each frame. Frame t lies between t / T and (t + 1) / T of the "
                            "answer: ask for its middle, (t + 0.5) / T.")
        same(got, turns(0.5), f"The turns of sizes {sizes} in {frames} frames")


# --- notebook 06: phase 2 ---


@exercise("the learning rate")
def learning_rate(attempt: Callable[..., float]) -> None:
    """attempt(step, steps, peak, end, warmup) -> learning rate: linear up to `peak`, half a cosine down to `end`"""
    from omni_lite.train import cosine

    steps, peak, end, warmup = 100, 1e-3, 1e-5, 10
    for step in (0, 4, 9, 10, 11, 55, 99, 100):
        got, wanted = float(attempt(step, steps, peak, end, warmup)), cosine(step, steps, peak, end, warmup)
        if abs(got - wanted) <= 1e-3 * wanted:
            continue
        if step < warmup:
            if abs(got - cosine(step, steps, peak, end, 0)) <= 1e-3 * peak or abs(got - peak) <= 1e-3 * peak:
                raise Wrong(f"Step {step} is within the warm-up of {warmup} steps: the rate climbs in a line, "
                            f"peak * (step + 1) / warmup, here {wanted:.6g}.")
            if step == 0 and got == 0:
                raise Wrong("A first step with a rate of 0 is a step for nothing: begin with peak * 1 / warmup.")
        elif abs(got - cosine(step, steps, peak, 0.0, warmup)) <= 1e-3 * peak * 0.01:
            raise Wrong(f"Yours falls to 0: the rate ends at `end`, here {end:g}, so that the last steps still learn.")
        elif abs(got - cosine(step, steps, peak, end, 0)) <= 1e-3 * wanted:
            raise Wrong("The cosine begins where the warm-up ends: count the steps from there, and their number too.")
        raise Wrong(f"At step {step} of {steps} the rate should be {wanted:.6g}, yours is {got:.6g}.")


@exercise("shares of what is learnt")
def learning_shares(attempt: Callable[..., dict[str, float]]) -> None:
    """attempt(mixture: share of the items by kind, targets: mean targets of an item by kind) -> share of all targets"""
    mixture, targets = {"A1T1": 0.5, "A1T2": 0.3, "T1T2": 0.4}, {"A1T1": 10.0, "A1T2": 5.0, "T1T2": 20.0}
    total = sum(mixture[kind] * targets[kind] for kind in mixture)
    wanted = {kind: mixture[kind] * targets[kind] / total for kind in mixture}
    got = attempt(mixture, targets)
    if not isinstance(got, dict) or set(got) != set(mixture):
        raise Wrong(f"Return a dictionary with the keys {', '.join(mixture)}.")
    if abs(sum(got.values()) - 1) > 1e-6:
        raise Wrong(f"Shares add up to 1, yours to {sum(got.values()):.4g}: divide by the sum over all kinds. The "
                    "mixture itself need not add up to 1 either.")
    if all(abs(got[kind] - mixture[kind] / sum(mixture.values())) < 1e-6 for kind in mixture):
        raise Wrong("These are the shares of the items. An item with more targets teaches more: weigh each kind by "
                    "them.")
    for kind in mixture:
        if abs(got[kind] - wanted[kind]) > 1e-6:
            raise Wrong(f"{kind} should have a share of {wanted[kind]:.4f}, yours is {got[kind]:.4f}.")


@exercise("kept, lost, won")
def kept_lost_won(attempt: Callable[..., tuple[int, int, int]]) -> None:
    """attempt(before, after: list of bool, one a question) -> right both times, only before, only after"""
    before = [True, True, True, False, False, True, False, True]
    after = [True, False, True, True, False, False, True, False]
    got = tuple(attempt(before, after))
    if len(got) != 3:
        raise Wrong(f"Return three counts, yours are {len(got)}.")
    if got == (2, 2, 3):
        raise Wrong("Lost and won are exchanged: lost is what was right before and is wrong now.")
    if got == (4, 3, 2):
        raise Wrong("You count as kept all that is right now: kept is what was right before as well.")
    if got[1] - got[2] == 1 and got[1] == 1:
        raise Wrong("You subtracted the totals. Three questions were lost and two won: the difference hides both.")
    if got != (2, 3, 2):
        raise Wrong(f"Of these eight questions 2 were kept, 3 lost and 2 won, yours are {got}.")


# --- notebook 07: phase 3 ---


@exercise("the loss of two mouths")
def two_mouths_loss(attempt: Callable[..., Tensor]) -> None:
    """attempt(text_logits (B, S, V), audio_logits (B, 7, S, A), text_target (B, S), audio_target (B, 7, S)) -> ()

    Cross-entropy of the text row plus that of the audio rows, each the mean over the targets that are not -100.
    """
    from torch.nn import functional as F

    dice = seeded()
    text_logits, audio_logits = torch.randn(2, 6, 9, generator=dice), torch.randn(2, 7, 6, 5, generator=dice)
    text_target = torch.randint(0, 9, (2, 6), generator=dice)
    audio_target = torch.randint(0, 5, (2, 7, 6), generator=dice)
    text_target[:, :3] = audio_target[:, :, :3] = -100
    audio_target[:, 6, 3] = audio_target[1, 5, 3] = -100
    text = F.cross_entropy(text_logits.flatten(0, 1), text_target.flatten())
    audio = F.cross_entropy(audio_logits.flatten(0, 2), audio_target.flatten())
    streams = [F.cross_entropy(audio_logits[:, q].flatten(0, 1), audio_target[:, q].flatten()) for q in range(7)]
    got = attempt(text_logits, audio_logits, text_target, audio_target)
    if not isinstance(got, Tensor) or got.numel() != 1:
        raise Wrong("Return one number, as a tensor.")
    found = float(got)
    for value, reason in (
        (text + torch.stack(streams).sum(), "You add the seven streams up, so the voice counts seven times: take the "
                                            "mean over all audio targets."),
        (text + torch.stack(streams).mean(), "Almost: you take the mean of the seven streams' means. Streams have "
                                             "different numbers of targets; take one mean over all of them."),
        (text, "The audio rows are missing."), (audio, "The text row is missing."),
        ((text + audio) / 2, "Add the two losses; you take their mean."),
    ):
        if abs(found - float(value)) < 1e-4 * abs(float(value)) and abs(float(value) - float(text + audio)) > 1e-3:
            raise Wrong(reason)
    if abs(found - float(text + audio)) > 1e-4:
        raise Wrong(f"The loss should be {float(text + audio):.5f}, yours is {found:.5f}. Do targets of -100 count in "
                    "yours?")


@exercise("drawing a code")
def draw_code(attempt: Callable[..., int]) -> None:
    """attempt(logits (V,), temperature, top_k, generator) -> the id drawn, as an int; temperature 0: the likeliest"""
    logits = torch.tensor([0.2, 3.0, 1.5, 2.4, -1.0, 0.9])
    if int(attempt(logits, 0.0, 0, seeded())) != 1:
        raise Wrong("At temperature 0 the likeliest id is taken, always.")
    for temperature, top_k in ((1.0, 0), (0.5, 0), (2.0, 0), (1.0, 3), (0.7, 2)):
        dice = seeded(1)
        drawn = torch.tensor([int(attempt(logits, temperature, top_k, dice)) for _ in range(2000)])
        found = torch.bincount(drawn, minlength=6)[:6] / 2000
        scores = logits / temperature
        if top_k:
            outside = scores < scores.topk(top_k).values[-1]
            if found[outside].sum() > 0:
                raise Wrong(f"With top_k = {top_k} an id was drawn that is not among the {top_k} likeliest.")
            scores = scores.masked_fill(outside, -torch.inf)
        wanted = scores.softmax(-1)
        if (found - wanted).abs().max() > 0.05:
            if (found - (logits * temperature).softmax(-1)).abs().max() < 0.05 and temperature != 1:
                raise Wrong("A higher temperature should make all ids more alike: divide the logits by it; you "
                            "multiply.")
            if float(found.max()) > 0.999:
                raise Wrong(f"At temperature {temperature:g} the same id comes every time: draw with "
                            "`torch.multinomial`, and do not make a new generator inside.")
            worst = int((found - wanted).abs().argmax())
            raise Wrong(f"At temperature {temperature:g} and top_k = {top_k} id {worst} should come in "
                        f"{100 * wanted[worst]:.0f} % of the draws, yours in {100 * found[worst]:.0f} %.")


@exercise("paired bootstrap")
def paired_bootstrap(attempt: Callable[..., float]) -> None:
    """attempt(a, b (n,) losses of two models on the same clips, draws, generator) -> share of draws where a is lower"""
    dice = seeded()
    hard = 3 * torch.randn(20, generator=dice)                 # some clips are hard for everybody
    b = hard + 0.1 * torch.randn(20, generator=dice)
    cases = ((b - 0.2, b, 0.98, 1.0), (b + 0.2, b, 0.0, 0.02))
    for a, b, low, high in cases:
        got = float(attempt(a, b, 1000, seeded(1)))
        if not 0 <= got <= 1:
            raise Wrong(f"A share lies between 0 and 1, yours is {got:.3g}.")
        if not low <= got <= high:
            if 0.5 < got < 0.75 and low > 0.5 or 0.25 < got < 0.5 and high < 0.5:
                raise Wrong("It looks as if each model had its own draw of clips. Both saw the same clips: draw clips "
                            "once, and take both models' losses on these, so that a hard clip is hard for both.")
            if 1 - high <= got <= 1 - low:
                raise Wrong("The sign is turned round: a lower loss is better, so count mean(a) < mean(b).")
            raise Wrong(f"Where every clip of a is {'lower' if low > 0.5 else 'higher'} by 0.2, the share should be "
                        f"near {(low + high) / 2:.0f}, yours is {got:.3f}.")
    d = torch.randn(30, generator=dice)
    d = d - d.mean() - 0.15 * d.std()                          # a small advantage, among noise
    base = torch.randn(30, generator=dice)
    got = float(attempt(base + d, base, 4000, seeded(2)))
    if not 0.68 < got < 0.9:
        raise Wrong(f"With a small advantage among much noise the share should be near 0.8, yours is {got:.2f}: are "
                    "clips drawn with replacement, as many as there are?")


# --- notebook 08 ---


@exercise("start_delay")
def start_delay(attempt: Callable[..., float]) -> None:
    """attempt(ready_s, lengths_s): how long to wait after the first chunk so that playing never runs dry.

    ready_s:   when each chunk was there;  lengths_s: how long each of them plays
    """
    cases = [
        ([0.1, 0.15, 0.2, 0.25], [0.085] * 4),                   # much faster than it is played
        ([0.1, 0.3, 0.5, 0.7], [0.1] * 4),                       # twice too slow all the time
        ([0.2, 0.25, 0.75, 0.78, 0.8], [0.1] * 5),               # held up once, in the middle
        ([1.0, 1.3, 1.35, 1.4], [0.2, 0.1, 0.3, 0.05]),          # chunks of many lengths
        ([0.4], [0.1]),                                          # a single chunk
    ]
    for ready_s, lengths_s in cases:
        got = attempt(list(ready_s), list(lengths_s))
        if not isinstance(got, int | float | np.floating):
            raise Wrong(f"It should return seconds, a number; yours returns {type(got).__name__}.")
        if got < 0:
            raise Wrong(f"Playing cannot begin before the first chunk is there: never less than 0, yours is {got:.3f}.")
        turns = [sum(lengths_s[:i]) for i in range(len(ready_s))]
        waits = [ready - ready_s[0] - turn for ready, turn in zip(ready_s, turns, strict=True)]
        late = max(range(len(waits)), key=waits.__getitem__)
        if got < waits[late] - 1e-6:
            raise Wrong(f"With ready_s={ready_s} and a delay of {got:.3f} s a gap is heard: chunk {late} is ready "
                        f"{ready_s[late] - ready_s[0]:.3f} s after the first, its turn comes after "
                        f"{turns[late] + got:.3f} s.")
        if got > max(0.0, waits[late]) + 1e-6:
            raise Wrong(f"With ready_s={ready_s} a delay of {got:.3f} s is safe, but {max(0.0, waits[late]):.3f} s "
                        "would do: it is counted from the moment when the first chunk is there.")


@exercise("two_rows")
def two_rows(attempt: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """attempt(text_id, audio_ids, pad_a): the next step's input of both rows, text (2, 1) and audio (2, 7, 1)."""
    for seed in range(3):
        audio_ids = torch.randint(0, 1000, (7,), generator=seeded(seed)).tolist()
        found = attempt(42 + seed, audio_ids, 1025)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong("It should return two tensors: the ids of the text row, and those of the seven audio rows.")
        text, audio = found
        same(text, torch.full((2, 1), 42 + seed), "The text, which both rows get alike,")
        same(audio[:1] if isinstance(audio, Tensor) and audio.dim() else audio, torch.tensor(audio_ids)[None, :, None],
             "The audio of row 0, which hears itself speak,")
        same(audio, torch.stack([torch.tensor(audio_ids), torch.full((7,), 1025)])[..., None],
             "The audio of both rows (row 1 is silent: it only writes)")


@exercise("crossfade")
def crossfade(attempt: Callable[..., Tensor]) -> None:
    """attempt(pieces, overlap): pieces (N_i,) of sound that share `overlap` samples with the next, joined by fading."""
    whole = torch.randn(1000, generator=seeded(1))
    starts, overlap = [0, 300, 620], 40
    ends = [300 + overlap, 620 + overlap, 1000]
    same(attempt([whole[a:b] for a, b in zip(starts, ends, strict=True)], overlap), whole,
         "Where neighbours agree on the samples that they share, the joined sound")
    faded = attempt([torch.zeros(100), torch.ones(100)], overlap)
    if not isinstance(faded, Tensor) or faded.shape != (160,):
        raise Wrong("Two pieces of 100 samples that share 40 are 160 samples long.")
    if faded[:60].abs().max() > 1e-5 or (faded[100:] - 1).abs().max() > 1e-5:
        raise Wrong("Outside the shared samples nothing should change.")
    ramp = faded[60:100]
    if (ramp.diff() < -1e-5).any() or ramp[0] > 0.2 or ramp[-1] < 0.8:
        raise Wrong("From silence into a piece of ones the shared samples should rise steadily, from 0 to 1; "
                    f"yours begin at {ramp[0].item():.2f} and end at {ramp[-1].item():.2f}.")


@exercise("nucleus")
def nucleus(attempt: Callable[..., Tensor]) -> None:
    """attempt(p, top_p): the most likely ids that together reach top_p keep their shares, scaled to 1; others get 0."""
    for seed, top_p in ((0, 0.9), (1, 0.5), (2, 1.0), (3, 0.01)):
        p = (3 * torch.randn(20, generator=seeded(seed))).softmax(0)
        order = p.argsort(descending=True)
        before = p[order].cumsum(0) - p[order]                   # what the likelier ones hold already
        kept = torch.zeros_like(p, dtype=torch.bool)
        kept[order[before < top_p]] = True
        got = attempt(p.clone(), top_p)
        if isinstance(got, Tensor) and got.shape == p.shape:
            if not (got > 0).any():
                raise Wrong(f"With top_p {top_p} nothing is left to draw: the most likely id always stays.")
            if (got > 0).sum() == kept.sum() - 1:
                raise Wrong(f"With top_p {top_p} you keep one id too few: the one that reaches top_p belongs to it.")
            if ((got > 0) == kept).all() and abs(float(got.sum()) - 1) > 1e-4:
                raise Wrong(f"The right ids are kept, but their sum is {float(got.sum()):.3f}: scale it back to 1.")
        same(got, torch.where(kept, p, 0) / p[kept].sum(), f"With top_p {top_p} the probabilities", 1e-4)


# --- notebook 09 ---


def _kinds(reference: Sequence[str], hypothesis: Sequence[str]) -> set[tuple[int, int, int]]:
    """All (substitutions, deletions, insertions) with which a cheapest way leads from one to the other."""
    n, m = len(reference), len(hypothesis)
    ways: dict[tuple[int, int], set[tuple[int, int, int]]] = {(0, 0): {(0, 0, 0)}}
    for i in range(n + 1):
        for j in range(m + 1):
            if i == j == 0:
                continue
            found: set[tuple[int, int, int]] = set()
            if i and j:
                wrong = reference[i - 1] != hypothesis[j - 1]
                found |= {(s + wrong, d, k) for s, d, k in ways[i - 1, j - 1]}
            if i:
                found |= {(s, d + 1, k) for s, d, k in ways[i - 1, j]}
            if j:
                found |= {(s, d, k + 1) for s, d, k in ways[i, j - 1]}
            least = min(map(sum, found))
            ways[i, j] = {way for way in found if sum(way) == least}
    return ways[n, m]


@exercise("error_kinds")
def error_kinds(attempt: Callable[..., tuple[int, int, int]]) -> None:
    """attempt(reference, hypothesis), lists of words: (substitutions, deletions, insertions) of a cheapest way."""
    pairs = [
        ("the cat sat", "the cat sat"), ("the cat sat", "the hat sat"), ("the cat sat", "the sat"),
        ("the cat sat", "the black cat sat"), ("", "hello there"), ("hello there", ""),
        ("one plus two is three", "one plus to is a tree"), ("a b c d", "b c d e"), ("say it now", "say that it know"),
    ]
    for said, wrote in pairs:
        got = attempt(said.split(), wrote.split())
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong("It should return three counts: substitutions, deletions, insertions.")
        ways, where = _kinds(said.split(), wrote.split()), f'From "{said}" to "{wrote}"'
        least = sum(next(iter(ways)))
        if sum(got) != least:
            raise Wrong(f"{where} the fewest changes are {least}, your counts add up to {sum(got)}.")
        if got[2] - got[1] != len(wrote.split()) - len(said.split()):
            raise Wrong(f"{where} insertions less deletions must be the difference of the lengths, "
                        f"{len(wrote.split()) - len(said.split())}; yours is {got[2] - got[1]}: are the two swapped?")
        if tuple(got) not in ways:
            raise Wrong(f"{where} no way has {got[0]} substitutions, {got[1]} deletions and {got[2]} insertions.")


@exercise("sample_size")
def sample_size(attempt: Callable[..., int]) -> None:
    """attempt(p, half): the fewest clips with which the Wilson interval of a share p is at most 2 * half wide."""

    def width(p: float, n: int) -> float:
        z = 1.959964
        return 2 * z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))

    for p, half in ((0.5, 0.1), (0.8, 0.05), (0.95, 0.02), (1.0, 0.01)):
        got = attempt(p, half)
        if not isinstance(got, int | np.integer):
            raise Wrong(f"It should return a whole number of clips, yours is {got!r}.")
        wanted = next(n for n in range(1, 20_000) if width(p, n) <= 2 * half)
        if abs(got - wanted) > 1:
            times = "wider" if got < wanted else "narrower"
            raise Wrong(f"For a share of {p} and ±{half} it takes {wanted} clips; with your {got} the interval is "
                        f"{width(p, max(1, int(got))):.4f} wide, {times} than needed.")


@exercise("mcnemar")
def mcnemar(attempt: Callable[..., float]) -> None:
    """attempt(right_a, right_b), two lists of bool about the same clips: two-sided exact p-value of McNemar's test."""
    generator = np.random.default_rng(0)
    cases = [([True] * 9 + [False], [True] * 9 + [False]), ([True] * 10, [False] * 10)]
    for n, a, b in ((40, 0.9, 0.6), (40, 0.5, 0.5), (200, 0.8, 0.7)):
        cases.append(((generator.random(n) < a).tolist(), (generator.random(n) < b).tolist()))
    for right_a, right_b in cases:
        only_a = sum(a and not b for a, b in zip(right_a, right_b, strict=True))
        only_b = sum(b and not a for a, b in zip(right_a, right_b, strict=True))
        n = only_a + only_b
        tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
        wanted = min(1.0, 2 * tail)
        got = attempt(right_a, right_b)
        if not isinstance(got, int | float | np.floating):
            raise Wrong(f"It should return a probability, a number; yours returns {type(got).__name__}.")
        if abs(got - wanted) > 1e-6:
            hint = ""
            if n and abs(got - tail) < 1e-6:
                hint = " That is one tail: two-sided means that either model may be the better one."
            raise Wrong(f"Where only the first is right {only_a} times and only the second {only_b} times, the p-value "
                        f"is {wanted:.5f}, yours is {got:.5f}.{hint}")


# --- notebook 10 ---


@exercise("split_pack")
def split_pack(attempt: Callable[..., Any]) -> None:
    """attempt(W_pack), (3 * D, D) of Baichuan: the weights of queries, keys and values, each (D, D)."""
    for width in (4, 6):
        packed = torch.randn(3 * width, width, generator=seeded(width))
        found = attempt(packed)
        if not isinstance(found, tuple | list) or len(found) != 3:
            raise Wrong("It should return three matrices: of queries, keys and values.")
        for i, name in enumerate(("queries", "keys", "values")):
            same(found[i], packed[i * width : (i + 1) * width], f"The matrix of the {name}")


@exercise("new_rows")
def new_rows(attempt: Callable[..., Tensor]) -> None:
    """attempt(table, extra): an embedding table with `extra` further rows, each the mean of the old ones."""
    table = torch.randn(50, 8, generator=seeded()) + 3
    before = table.clone()
    got = attempt(table, 6)
    if not torch.equal(table, before):
        raise Wrong("The old table itself was changed: make a new one.")
    if isinstance(got, Tensor) and got.shape == (56, 8) and not torch.equal(got[:50], before):
        raise Wrong("The old rows should stay what they were, bit for bit: the text path depends on them.")
    same(got, torch.cat([before, before.mean(0).expand(6, -1)]), "The longer table")


@exercise("split_groups")
def split_groups(attempt: Callable[..., Any]) -> None:
    """attempt(fused, heads, groups): the release's one matrix, group after group, as queries, keys and values."""
    from omni_lite import release

    for heads, groups, size in ((4, 2, 3), (6, 2, 2), (3, 3, 2), (4, 1, 2)):
        fused = torch.randn((heads + 2 * groups) * size, 5, generator=seeded(heads))
        found = attempt(fused, heads, groups)
        if not isinstance(found, tuple | list) or len(found) != 3:
            raise Wrong("It should return three matrices: of queries, keys and values.")
        wanted = release.split_groups(fused, heads, groups)
        for got, one, name in zip(found, wanted, ("queries", "keys", "values"), strict=True):
            if isinstance(got, Tensor) and got.shape == one.shape and groups > 1:
                plain = {"queries": 0, "keys": heads * size, "values": (heads + groups) * size}[name]
                if torch.equal(got, fused[plain : plain + len(one)]):
                    raise Wrong(f"Your {name} are rows in one piece, but each group's queries, key and value "
                                "lie together: q q k v, then q q k v.")
            same(got, one, f"With {heads} heads in {groups} groups the {name}")


@exercise("keeps_up")
def keeps_up(attempt: Callable[..., str | None]) -> None:
    """attempt(parameters, bandwidth_gb_s): the most precise of fp32, bf16, int8 that keeps up with speech, or None.

    A step reads every parameter once, and has one frame's time for it.
    """
    cases = ((10e6, 10.0), (500e6, 30.0), (500e6, 15.0), (500e6, 8.0), (7e9, 30.0), (7e9, 100.0), (7e9, 3000.0))
    for parameters, bandwidth_gb_s in cases:
        wanted = None
        for name, size in (("fp32", 4), ("bf16", 2), ("int8", 1)):
            if wanted is None and parameters * size / (bandwidth_gb_s * 1e9) <= FRAME_SECONDS:
                wanted = name
        got = attempt(parameters, bandwidth_gb_s)
        if got not in ("fp32", "bf16", "int8", None):
            raise Wrong(f'It should return "fp32", "bf16", "int8" or None, yours returns {got!r}.')
        if got != wanted:
            floors = ", ".join(f"{name} {1000 * parameters * size / (bandwidth_gb_s * 1e9):.1f} ms"
                               for name, size in (("fp32", 4), ("bf16", 2), ("int8", 1)))
            raise Wrong(f"{parameters / 1e6:,.0f} million parameters at {bandwidth_gb_s:g} GB/s: steps take {floors}, "
                        f"a frame lasts {1000 * FRAME_SECONDS:.1f} ms, so the answer is {wanted!r}, yours {got!r}.")
