"""Checks of notebooks 00 to 04: hearing, speaking, eight streams, the model."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from omni_lite.course.checks.exercise import Wrong, exercise, same, seeded
from omni_lite.vocab import CODEC_RATE, FRAME_SAMPLES

# --- notebook 00: start here ---


@exercise("frames needed")
def frames_needed(attempt: Callable[..., int]) -> None:
    """attempt(seconds) -> number of frames of 2048 samples that hold so much sound at 24 kHz"""
    for seconds in (1.0, 0.5, 2.0, 32.0):
        exact = seconds * CODEC_RATE / FRAME_SAMPLES
        wanted, got = math.ceil(exact), attempt(seconds)
        if got == wanted:
            continue
        if got == math.floor(exact):
            raise Wrong(f"{seconds:g} s are {exact:.2f} frames, and {got} of them cut the end off. The last frame may "
                        "be incomplete, so round up.")
        if isinstance(got, float) and abs(got - exact) < 1e-6:
            raise Wrong(f"{got:.2f} is not a number of frames: the codec makes whole ones, so round up.")
        if got == wanted + 1:
            raise Wrong(f"{seconds:g} s are exactly {exact:g} frames: do not add 1 if nothing is left over.")
        raise Wrong(f"{seconds:g} s at {CODEC_RATE} samples a second are {seconds * CODEC_RATE:.0f} samples, so "
                    f"{wanted} frames of {FRAME_SAMPLES}; yours are {got!r}.")


@exercise("real-time factor")
def real_time_factor(attempt: Callable[..., float]) -> None:
    """attempt(total_ms, audio_s) -> seconds computed per second of sound"""
    for total_ms, audio_s in ((500.0, 2.0), (3000.0, 1.5), (100.0, 4.0)):
        wanted, got = total_ms / 1000 / audio_s, float(attempt(total_ms, audio_s))
        if abs(got - wanted) <= 1e-6 * wanted:
            continue
        if abs(got - 1 / wanted) <= 1e-6 / wanted:
            raise Wrong("Upside down: divide the time to compute by the time to play. A factor below 1 keeps up.")
        if abs(got - 1000 * wanted) <= 1e-3 * wanted:
            raise Wrong("One of the two times is in milliseconds and the other in seconds: convert both to seconds "
                        "first.")
        raise Wrong(f"{total_ms:g} ms to compute {audio_s:g} s of sound is a factor of {wanted:g}, yours is {got:g}.")


@exercise("first sound")
def first_sound(attempt: Callable[..., float | None]) -> None:
    """attempt(trace: [(ms, seconds of sound so far, word)]) -> ms of the first step with sound, or None"""
    trace = [(12.0, 0.0, "I"), (20.0, 0.0, " am"), (31.0, 0.09, " well"), (40.0, 0.17, "."), (50.0, 0.26, "")]
    got = attempt(trace)
    if got == 12.0:
        raise Wrong("That is the first step of all, before any sound: look at the second entry of each step.")
    if got == 40.0:
        raise Wrong("That is one step too late: 0.09 s of sound already count, so test for more than 0.")
    if got != 31.0:
        raise Wrong(f"In {trace} the first sound is ready after 31.0 ms, yours says {got!r}.")
    if attempt(trace[:2]) is not None:
        raise Wrong("This answer is silent, so give None for it.")


# --- notebook 01: hearing ---


@exercise("cut windows")
def cut_windows(attempt: Callable[..., Tensor]) -> None:
    """attempt(wav (N,), size, hop) -> (n, size): every window that fits, each `hop` samples after the previous one"""
    for N, size, hop in ((10, 4, 2), (11, 4, 3), (400, 400, 160)):
        wav = torch.arange(float(N))
        wanted = wav.unfold(0, size, hop)
        got = attempt(wav, size, hop)
        if isinstance(got, Tensor) and got.dim() == 2 and got.shape[1] == size:
            if len(got) == len(wanted) - 1:
                raise Wrong(f"The last window is missing: {N} samples hold {len(wanted)} windows of {size} with a hop "
                            f"of {hop}. The last one may end at the last sample.")
            if len(got) > 1 and torch.equal(got[1], wav[size : 2 * size]):
                raise Wrong("Your windows do not overlap: the next one starts `hop` samples later, not `size`.")
        same(got, wanted, f"The windows of {N} samples (size {size}, hop {hop})")


@exercise("positions of a question")
def positions_of(attempt: Callable[..., int]) -> None:
    """attempt(num_samples) -> number of the language model's positions for a question of so many samples"""
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
            raise Wrong(f"For {samples} samples there are {num_features(samples)} features. The last group of four "
                        "may be incomplete, and it counts: round up.")
        raise Wrong(f"{samples} samples and 3,200 of silence make {(samples + 3200) // 160} columns, half as many "
                    f"features, a quarter as many positions: {wanted}; yours are {got!r}.")


@exercise("mix at a chosen SNR")
def mix_at_snr(attempt: Callable[..., Tensor]) -> None:
    """attempt(speech (N,), noise (N,), snr_db) -> speech + scaled noise with this ratio of powers"""
    rng = seeded()
    speech, noise = 0.3 * torch.randn(4000, generator=rng), 2.0 * torch.randn(4000, generator=rng)
    for snr_db in (20.0, 6.0, -5.0):
        wanted = speech + noise * (speech.pow(2).mean() / noise.pow(2).mean()).sqrt() * 10 ** (-snr_db / 20)
        got = attempt(speech, noise, snr_db)
        if isinstance(got, Tensor) and got.shape == speech.shape:
            added = (got - speech).double()
            if added.abs().max() < 1e-9:
                raise Wrong("Nothing was added to the speech.")
            if torch.cosine_similarity(added, noise.double(), dim=0) < 0.999:
                raise Wrong("You added more than the noise: keep the speech as it is and scale only the noise.")
            found = float(10 * (speech.double().pow(2).mean() / added.pow(2).mean()).log10())
            if abs(found - 2 * snr_db) < 0.1:
                raise Wrong(f"Asked for {snr_db:g} dB, the mix has {found:.1f}: decibels measure power. Scale an "
                            "amplitude by 10 ** (-snr_db / 20), not / 10.")
            if abs(found + snr_db) < 0.1:
                raise Wrong(f"Asked for {snr_db:g} dB, the mix has {found:.1f}: a higher ratio means less noise.")
            if abs(found - snr_db) > 0.1:
                raise Wrong(f"Asked for {snr_db:g} dB, the mix has {found:.1f} dB. First scale the noise to the power "
                            "of the speech, then make it quieter.")
        same(got, wanted, f"The mix at {snr_db:g} dB", tolerance=1e-3)


@exercise("centred cosine")
def centred_cosine(attempt: Callable[..., Tensor]) -> None:
    """attempt(a (T, D), b (T, D), mean (D,)) -> (T,): cosine of a - mean and b - mean at every time"""
    rng = seeded()
    mean = 3 + torch.randn(6, generator=rng)
    a, b = mean + torch.randn(5, 6, generator=rng), mean + torch.randn(5, 6, generator=rng)
    wanted = torch.cosine_similarity(a - mean, b - mean, dim=-1)
    got = attempt(a, b, mean)
    if isinstance(got, Tensor) and got.shape == wanted.shape:
        if torch.allclose(got, torch.cosine_similarity(a, b, dim=-1), atol=1e-5):
            raise Wrong("You did not subtract the mean. All features point roughly in its direction, so their cosines "
                        "are all high.")
        if torch.allclose(got, ((a - mean) * (b - mean)).sum(-1), atol=1e-5):
            raise Wrong("This is the dot product: divide it by both lengths, so that loudness does not matter.")
    if isinstance(got, Tensor) and got.dim() == 0 or isinstance(got, float):
        raise Wrong("One number for the whole clip hides where the two differ: return one for each time, shape (T,).")
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
            wanted / 8: "These are bytes: the exercise asks for bits, and a byte has eight.",
            tokens * codebook * rate / samples: "A choice among K entries takes log2(K) bits, not K.",
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
    from omni_lite.litesnac.codec import frames_from_levels

    B, T = 2, 3
    levels = [100 * (level + 1) + torch.arange(B * T * 2**level).view(B, -1) for level in range(3)]
    wanted, got = frames_from_levels(levels), attempt(levels)
    if isinstance(got, Tensor) and got.shape == wanted.shape and not torch.equal(got, wanted):
        by_level = [0, 1, 4, 2, 3, 5, 6]                      # all middle tokens before all fine ones
        if torch.equal(got, wanted[:, by_level]):
            raise Wrong("You put both middle tokens before the four fine ones. The order follows time: the second "
                        "middle token comes after the two fine ones of the first half.")
        if torch.equal(got[:, 0], wanted[:, 0]) and torch.equal(got[:, 1], levels[1][:, :T]):
            raise Wrong("Stream 1 of frame t is token 2t of the middle level: take every second one, `[:, 0::2]`, not "
                        "the first T.")
    same(got, wanted, "The frames")


@exercise("nearest entry")
def nearest_entry(attempt: Callable[..., Tensor]) -> None:
    """attempt(vectors (n, C), codebook (K, C)) -> (n,) int64: the entry in the most similar direction"""
    rng = seeded()
    vectors, codebook = torch.randn(50, 4, generator=rng), torch.randn(30, 4, generator=rng)
    codebook *= torch.linspace(0.2, 3, 30)[:, None]           # different lengths, to find a missing normalisation
    cosine = torch.nn.functional.normalize(vectors) @ torch.nn.functional.normalize(codebook).T
    got = attempt(vectors, codebook)
    if isinstance(got, Tensor) and got.shape == (50,) and not torch.equal(got, cosine.argmax(1)):
        if torch.equal(got, torch.cdist(vectors, codebook).argmin(1)):
            raise Wrong("You take the entry at the smallest distance. This codec compares directions: normalise "
                        "vectors and entries to length 1 first.")
        if torch.equal(got, (vectors @ codebook.T).argmax(1)):
            raise Wrong("A plain dot product favours long entries: normalise each entry to length 1 first.")
        if torch.equal(got, cosine.argmin(1)):
            raise Wrong("You take the entry in the opposite direction: the cosine should be largest.")
    same(got, cosine.argmax(1), "The entries")


@exercise("entropy in bits")
def entropy_bits(attempt: Callable[..., float]) -> None:
    """attempt(counts (K,) of each entry) -> mean bits of a token"""
    for counts in ([8, 8, 8, 8], [4, 2, 1, 1], [5, 0, 5, 0, 0]):
        p = torch.tensor([c for c in counts if c]).double() / sum(counts)
        wanted, got = float(-(p * p.log2()).sum()), float(attempt(torch.tensor(counts)))
        if math.isnan(got):
            raise Wrong(f"For {counts} yours is not a number: 0 * log 0 counts as 0, so leave entries with a count of "
                        "0 out of the sum.")
        if abs(got - wanted) < 1e-4:
            continue
        if abs(got - wanted * math.log(2)) < 1e-4:
            raise Wrong("That is the natural logarithm: bits need log2.")
        if abs(got + wanted) < 1e-4:
            raise Wrong("The sign is wrong: the logarithm of a share is negative, so the sum needs a minus.")
        raise Wrong(f"Counts of {counts} have an entropy of {wanted:.3f} bits, yours is {got:.3f}.")


# --- notebook 03: eight streams ---


@exercise("steps of an answer")
def steps_of(attempt: Callable[..., tuple[int, int, int]]) -> None:
    """attempt(frames) -> steps to the end of the last frame without delay, with delay, flattened; text comes first"""
    for frames in (1, 12, 100):
        wanted, got = (frames + 1, frames + 7, 7 * frames + 1), tuple(attempt(frames))
        if got == wanted:
            continue
        if got == (frames, frames + 6, 7 * frames):
            raise Wrong("One step is missing in each: step 0 only says the first word, because the text comes first.")
        for name, mine, right in zip(("without delay", "with the delay", "flattened"), got, wanted, strict=False):
            if mine != right:
                raise Wrong(f"{frames} frames {name} take {right} steps, yours are {mine}: find the step at which the "
                            "last stream says the last frame, and count all steps from step 0 to it.")
        raise Wrong(f"Return three numbers, for {frames} frames {wanted}; yours are {got}.")


@exercise("undelay")
def undelay(attempt: Callable[..., Tensor]) -> None:
    """attempt(delayed (7, S)) -> (7, S - 7): the streams aligned to frames"""
    from omni_lite.streams import delay_streams

    for T in (5, 1, 12):
        codes = torch.randint(0, 1000, (7, T), generator=seeded(T))
        delayed = delay_streams(codes, 1025)
        got = attempt(delayed)
        if isinstance(got, Tensor) and got.shape == delayed.shape:
            raise Wrong(f"{T + 7} steps hold {T} whole frames, not {T + 7}: remove the padding.")
        if isinstance(got, Tensor) and got.shape == codes.shape and not torch.equal(got, codes):
            early = torch.stack([delayed[q, q : q + T] for q in range(7)])
            if torch.equal(got, early):
                raise Wrong("Off by one: stream q starts q + 1 steps after the text, so stream 0 starts at step 1.")
            if torch.equal(got, delayed[:, 7:]) or torch.equal(got, delayed[:, :T]):
                raise Wrong("You cut the same steps from every stream, but each starts one step later than the last.")
        same(got, codes, f"The frames (T = {T})")


@exercise("layer shift")
def layer_shift(attempt: Callable[..., Tensor]) -> None:
    """attempt(audio (7, S), text_size, audio_size) -> (7, S): ids in the shared table"""
    for text_size, audio_size in ((152_000, 4160), (2112, 1088)):
        audio = torch.randint(0, audio_size, (7, 4), generator=seeded())
        stream = torch.arange(7)[:, None]
        wanted = audio + text_size + audio_size * stream
        got = attempt(audio, text_size, audio_size)
        if isinstance(got, Tensor) and got.shape == wanted.shape and not torch.equal(got, wanted):
            if torch.equal(got, audio + audio_size * stream):
                raise Wrong(f"The first {text_size:,} rows of the table are text: the audio bands begin after them.")
            if torch.equal(got, wanted + audio_size):
                raise Wrong("Stream 0 has the first band: shift its ids only by text_size.")
            if torch.equal(got, audio + text_size):
                raise Wrong("All your streams share one band: shift stream q by another q * audio_size.")
        same(got, wanted, "The shifted ids")


@exercise("the prompt of a transcript")
def transcript_prompt(attempt: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """attempt(vocab, positions) -> text stream (S,), audio streams (7, S) of the prompt of A1T1"""
    from omni_lite.streams import Task, prompt
    from omni_lite.vocab import Vocab

    for vocab, positions in ((Vocab(2048, 1024), 5), (Vocab(151_936, 4096), 2)):
        wanted = prompt(vocab, Task.A1T1, positions=positions)
        text, audio = attempt(vocab, positions)
        if isinstance(text, Tensor) and len(text) == len(wanted) - 1:
            raise Wrong(f"A question of {positions} positions takes {len(wanted)} steps, yours has {len(text)}: one "
                        "step before them and two after them.")
        if isinstance(text, Tensor) and text.shape == wanted.text.shape:
            if int(text[-1]) == vocab.answer_t:
                raise Wrong("Your last text id asks for an answer: `vocab.asr` asks for a transcript.")
            if int(text[-2]) != vocab.eot:
                raise Wrong("The question ends in the text stream too: `vocab.eot` comes before the last id.")
        if isinstance(audio, Tensor) and audio.shape == wanted.audio.shape and int(audio[0, -1]) == vocab.answer_a:
            raise Wrong("Your last audio ids ask for a spoken answer. A transcript is written, so the audio streams "
                        "stay silent (`vocab.pad_a`).")
        same(text, wanted.text, "The text stream")
        same(audio, wanted.audio, "The audio streams")


# --- notebook 04: the model ---


def _tiny_model(seed: int = 0) -> Any:
    """An OmniModel of a few thousand weights."""
    from dataclasses import replace

    from omni_lite.config import LITE, EarConfig
    from omni_lite.model import OmniModel
    from omni_lite.vocab import Vocab

    trunk = LITE.trunk | dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    ear = EarConfig(whisper="tiny.en", width=8, stack=2, adapter="mlp", hidden=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OmniModel(replace(LITE, vocab=Vocab(40, 16), ear=ear, trunk=trunk, tts_blocks=1)).eval()
        for parameter in model.parameters():              # larger weights, so that every part matters
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@exercise("mean of eight")
def mean_of_eight(attempt: Callable[..., Tensor]) -> None:
    """attempt(text_table (V, D), audio_table (7 * A, D), text_ids (B, S), audio_ids (B, 7, S)) -> (B, S, D)"""
    rng = seeded()
    text_table, audio_table = torch.randn(11, 5, generator=rng), torch.randn(7 * 6, 5, generator=rng)
    text_ids = torch.randint(0, 11, (2, 3), generator=rng)
    audio_ids = torch.randint(0, 6, (2, 7, 3), generator=rng)
    text = text_table[text_ids]
    audio = [audio_table[6 * q + audio_ids[:, q]] for q in range(7)]
    wanted = torch.stack([text, *audio]).mean(0)
    got = attempt(text_table, audio_table, text_ids, audio_ids)
    if isinstance(got, Tensor) and got.shape == wanted.shape:
        if torch.allclose(got, 8 * wanted, atol=1e-5):
            raise Wrong("This is the sum of the eight embeddings: divide it by eight.")
        unshifted = torch.stack([text, *[audio_table[audio_ids[:, q]] for q in range(7)]]).mean(0)
        if torch.allclose(got, unshifted, atol=1e-5):
            raise Wrong("All seven streams read the first band of the audio table. The ids of stream q begin at row "
                        "q * V_audio (the layer shift); V_audio is a seventh of the table's rows.")
        if torch.allclose(got, (text + torch.stack(audio).mean(0)) / 2, atol=1e-5):
            raise Wrong("Your text stream counts as much as the seven audio streams together: each counts an eighth.")
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
            wanted - layers * biases: "The biases of the queries, keys and values are missing: Qwen2 has biases only "
                                      "there.",
            wanted - layers * norms: "Each block has two norms of D weights each.",
            wanted - layers * width * mlp: "The MLP has three matrices, not two: gate, up and down.",
            wanted + layers * width: "You count a bias of the attention's output projection: Qwen2 does not have it.",
            layers * (4 * width * width + 3 * width + 3 * width * mlp + norms) + width:
                "Keys and values are narrower than queries: they have D * kv_heads / heads columns.",
        }
        if got != wanted:
            asked = f"For D = {width}, an MLP of {mlp}, {layers} blocks, {heads} heads and {kv_heads} kv heads"
            raise Wrong(reasons.get(got, f"{asked} there are {wanted:,} parameters, yours are {got:,}."))


@exercise("one step at a time")
def one_step_at_a_time(attempt: Callable[..., Tensor]) -> None:
    """attempt(model, x (1, S, D)) -> the trunk's output at every step (1, S, D), with one step a call"""
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
        raise Wrong("Every step saw only itself: make one `model.new_cache()` and pass it to every call of "
                    "`model.run`.")
    same(got, wanted, "The trunk's output", tolerance=1e-4)
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
            raise Wrong(f"{task} also reaches audio_embed: a silent audio stream is not zero. Every step adds the "
                        "embedding of pad_a.")
        if right - parts:
            raise Wrong(f"{task} also reaches {min(right - parts)}.")
        if "tts_adapter" in parts - right:
            raise Wrong(f"{task} has a written answer, so no loss comes through the tts_adapter.")
        if "asr_adapter" in parts - right:
            raise Wrong(f"{task} reads its question, so the asr_adapter does not run.")
        if parts - right:
            raise Wrong(f"{task} does not reach {min(parts - right)}.")
