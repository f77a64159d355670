"""Checks of notebooks 05 to 07: the three phases."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from omni_lite.course.checks.exercise import Wrong, exercise, same, seeded

# --- notebook 05: phase 1 ---


@exercise("stacking")
def stacking(attempt: Callable[..., Tensor]) -> None:
    """attempt(features (B, T, D), stack) -> (B, ceil(T / stack), stack * D), the last group padded with zeros"""
    for B, T, D, stack in ((2, 8, 3, 4), (1, 7, 2, 4), (2, 5, 3, 2)):
        features = torch.arange(1.0, B * T * D + 1).view(B, T, D)
        S = -(-T // stack)
        filled = torch.zeros(B, S * stack, D)
        filled[:, :T] = features
        wanted = filled.reshape(B, S, stack * D)
        got = attempt(features, stack)
        if isinstance(got, Tensor) and got.shape == (B, T // stack, stack * D) != wanted.shape:
            raise Wrong(f"{T} features in groups of {stack} leave a rest, and you lose it: pad the last group with "
                        "zeros. The end of the last word may be in it.")
        if isinstance(got, Tensor) and got.shape == wanted.shape:
            mixed = filled.view(B, S, stack, D).transpose(2, 3).reshape(B, S, stack * D)
            if torch.equal(got, mixed) and not torch.equal(mixed, wanted):
                raise Wrong("A position should hold whole features, one after the other; yours are interleaved.")
        same(got, wanted, "The stacked features")


@exercise("freezing")
def freezing(attempt: Callable[..., Any]) -> None:
    """attempt(model, names) -> the parameters that may change; freeze all others"""
    from torch import nn

    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("asr_adapter", "trunk", "tts_adapter")})
    for names in (("trunk",), ("asr_adapter", "tts_adapter"), ("tts_adapter",)):
        got = attempt(model, names)
        for name, part in model.items():
            for parameter in part.parameters():
                if parameter.requires_grad and name not in names:
                    raise Wrong(f"If {names} should train, {name} still takes gradients (the phase before may have "
                                "trained it): set requires_grad of every part.")
                if not parameter.requires_grad and name in names:
                    raise Wrong(f"If {names} should train, {name} takes no gradients (the phase before may have "
                                "frozen it): set requires_grad to True.")
        try:
            given = {id(parameter) for parameter in got}
        except TypeError:
            raise Wrong("Return the list of parameters that the optimizer may change.") from None
        if given != {id(p) for p in model.parameters() if p.requires_grad}:
            raise Wrong(f"If {names} should train, return exactly the parameters of these parts for the optimizer.")


@exercise("whose turn it is")
def whose_turn(attempt: Callable[..., Tensor]) -> None:
    """attempt(sizes of the tokens in bytes, frames) -> (frames,) int64: the token at the middle of each frame"""
    for sizes, frames in (([2, 6], 8), ([1, 3, 4], 10), ([5], 4), ([7, 1, 2, 3], 9)):
        ends = torch.tensor(sizes, dtype=torch.float64).cumsum(0) / sum(sizes)

        def turns(shift: float, ends: Tensor = ends, frames: int = frames) -> Tensor:
            now = (torch.arange(frames, dtype=torch.float64) + shift) / frames
            return torch.searchsorted(ends, now, right=True).clamp(max=len(ends) - 1)

        got = attempt(sizes, frames)
        if isinstance(got, Tensor) and got.shape == (frames,) and not torch.equal(got.long(), turns(0.5)):
            if torch.equal(got.long(), (torch.arange(frames) * len(sizes)) // frames):
                raise Wrong(f"You give every token the same time. A long word takes longer: divide {frames} frames in "
                            f"the proportion of {sizes}.")
            if torch.equal(got.long(), turns(0.0)) or torch.equal(got.long(), turns(1.0)):
                raise Wrong("You look at an edge of each frame. Frame t lies between t / T and (t + 1) / T of the "
                            "answer, so ask for its middle, (t + 0.5) / T.")
        same(got, turns(0.5), f"The turns of sizes {sizes} in {frames} frames")


# --- notebook 06: phase 2 ---


@exercise("the learning rate")
def learning_rate(attempt: Callable[..., float]) -> None:
    """attempt(step, steps, peak, end, warmup) -> learning rate: linear up to `peak`, half a cosine down to `end`"""
    from omni_lite.loop import cosine

    steps, peak, end, warmup = 100, 1e-3, 1e-5, 10
    for step in (0, 4, 9, 10, 11, 55, 99, 100):
        got, wanted = float(attempt(step, steps, peak, end, warmup)), cosine(step, steps, peak, end, warmup)
        if abs(got - wanted) <= 1e-3 * wanted:
            continue
        if step < warmup:
            if abs(got - cosine(step, steps, peak, end, 0)) <= 1e-3 * peak or abs(got - peak) <= 1e-3 * peak:
                raise Wrong(f"Step {step} is in the warm-up of {warmup} steps. The rate rises linearly, "
                            f"peak * (step + 1) / warmup, here {wanted:.6g}.")
            if step == 0 and got == 0:
                raise Wrong("A first step with a rate of 0 changes nothing: begin with peak * 1 / warmup.")
        elif abs(got - cosine(step, steps, peak, 0.0, warmup)) <= 1e-3 * peak * 0.01:
            raise Wrong(f"Yours falls to 0: the rate ends at `end`, here {end:g}, so the last steps still learn.")
        elif abs(got - cosine(step, steps, peak, end, 0)) <= 1e-3 * wanted:
            raise Wrong("The cosine begins where the warm-up ends: subtract the warm-up from `step` and from `steps`.")
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
        raise Wrong(f"Shares add up to 1, yours to {sum(got.values()):.4g}: divide by the sum over all kinds.")
    if all(abs(got[kind] - mixture[kind] / sum(mixture.values())) < 1e-6 for kind in mixture):
        raise Wrong("These are the shares of the items. An item with more targets counts more: multiply each share by "
                    "its targets.")
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
        raise Wrong("Swap lost and won: a lost question was right before and is wrong now.")
    if got == (4, 3, 2):
        raise Wrong("You count every question that is right now: a kept one was right before as well.")
    if got[1] - got[2] == 1 and got[1] == 1:
        raise Wrong("You subtracted the totals. Three questions were lost and two won: the difference hides both.")
    if got != (2, 3, 2):
        raise Wrong(f"Of these eight questions 2 were kept, 3 lost and 2 won, yours are {got}.")


# --- notebook 07: phase 3 ---


@exercise("the loss of two mouths")
def two_mouths_loss(attempt: Callable[..., Tensor]) -> None:
    """attempt(text_logits (B, S, V), audio_logits (B, 7, S, A), text_target (B, S), audio_target (B, 7, S)) -> ()

    Cross-entropy of the text stream plus that of the audio streams, each the mean over the targets that are not -100.
    """
    from torch.nn import functional as F

    rng = seeded()
    text_logits, audio_logits = torch.randn(2, 6, 9, generator=rng), torch.randn(2, 7, 6, 5, generator=rng)
    text_target = torch.randint(0, 9, (2, 6), generator=rng)
    audio_target = torch.randint(0, 5, (2, 7, 6), generator=rng)
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
        (text + torch.stack(streams).sum(), "You add up the seven streams, so the voice counts seven times: take the "
                                            "mean over all audio targets."),
        (text + torch.stack(streams).mean(), "Almost: you take the mean of the seven streams' means. Streams have "
                                             "different numbers of targets; take one mean over all of them."),
        (text, "The audio loss is missing."), (audio, "The text loss is missing."),
        ((text + audio) / 2, "You take the mean of the two losses: add them."),
    ):
        if abs(found - float(value)) < 1e-4 * abs(float(value)) and abs(float(value) - float(text + audio)) > 1e-3:
            raise Wrong(reason)
    if abs(found - float(text + audio)) > 1e-4:
        raise Wrong(f"The loss should be {float(text + audio):.5f}, yours is {found:.5f}. Do you ignore targets of "
                    "-100?")


@exercise("drawing a code")
def draw_code(attempt: Callable[..., int]) -> None:
    """attempt(logits (V,), temperature, top_k, generator) -> the id drawn, as an int; temperature 0: the most likely"""
    logits = torch.tensor([0.2, 3.0, 1.5, 2.4, -1.0, 0.9])
    if int(attempt(logits, 0.0, 0, seeded())) != 1:
        raise Wrong("At temperature 0 always return the most likely id.")
    for temperature, top_k in ((1.0, 0), (0.5, 0), (2.0, 0), (1.0, 3), (0.7, 2)):
        rng = seeded(1)
        drawn = torch.tensor([int(attempt(logits, temperature, top_k, rng)) for _ in range(2000)])
        found = torch.bincount(drawn, minlength=6)[:6] / 2000
        scores = logits / temperature
        if top_k:
            outside = scores < scores.topk(top_k).values[-1]
            if found[outside].sum() > 0:
                raise Wrong(f"With top_k = {top_k} you draw an id that is not among the {top_k} most likely.")
            scores = scores.masked_fill(outside, -torch.inf)
        wanted = scores.softmax(-1)
        if (found - wanted).abs().max() > 0.05:
            if (found - (logits * temperature).softmax(-1)).abs().max() < 0.05 and temperature != 1:
                raise Wrong("A higher temperature should make the probabilities more equal: divide the logits by it; "
                            "you multiply.")
            if float(found.max()) > 0.999:
                raise Wrong(f"At temperature {temperature:g} the same id comes every time: draw with "
                            "`torch.multinomial`, and use the given generator.")
            worst = int((found - wanted).abs().argmax())
            raise Wrong(f"At temperature {temperature:g} and top_k = {top_k} id {worst} should come in "
                        f"{100 * wanted[worst]:.0f} % of the draws, yours in {100 * found[worst]:.0f} %.")


@exercise("paired bootstrap")
def paired_bootstrap(attempt: Callable[..., float]) -> None:
    """attempt(a, b (n,) losses of two models on the same clips, draws, generator) -> share of draws where a is lower"""
    rng = seeded()
    hard = 3 * torch.randn(20, generator=rng)                  # some clips are hard for both models
    b = hard + 0.1 * torch.randn(20, generator=rng)
    cases = ((b - 0.2, b, 0.98, 1.0), (b + 0.2, b, 0.0, 0.02))
    for a, b, low, high in cases:
        got = float(attempt(a, b, 1000, seeded(1)))
        if not 0 <= got <= 1:
            raise Wrong(f"A share lies between 0 and 1, yours is {got:.3g}.")
        if not low <= got <= high:
            if 0.5 < got < 0.75 and low > 0.5 or 0.25 < got < 0.5 and high < 0.5:
                raise Wrong("You seem to draw its own clips for each model. Draw the clips once and take both models' "
                            "losses on them, so that a hard clip is hard for both.")
            if 1 - high <= got <= 1 - low:
                raise Wrong("The sign is wrong: a lower loss is better, so count mean(a) < mean(b).")
            raise Wrong(f"Where every clip of a is {'lower' if low > 0.5 else 'higher'} by 0.2, the share should be "
                        f"near {(low + high) / 2:.0f}, yours is {got:.3f}.")
    d = torch.randn(30, generator=rng)
    d = d - d.mean() - 0.15 * d.std()                          # a small advantage, among noise
    base = torch.randn(30, generator=rng)
    got = float(attempt(base + d, base, 4000, seeded(2)))
    if not 0.68 < got < 0.9:
        raise Wrong(f"With a small advantage among much noise the share should be near 0.8, yours is {got:.2f}: draw "
                    "as many clips as there are, with replacement.")
