"""Checks of notebooks 08 to 10: streaming, judging, other models."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omni_lite.course.checks.exercise import Wrong, exercise, same, seeded
from omni_lite.vocab import FRAME_SECONDS

# --- notebook 08 ---


@exercise("start_delay")
def start_delay(attempt: Callable[..., float]) -> None:
    """attempt(ready_s, lengths_s): the least wait after the first chunk that avoids gaps in the playback.

    ready_s:   when each chunk is ready;  lengths_s: how long each chunk plays
    """
    cases = [
        ([0.1, 0.15, 0.2, 0.25], [0.085] * 4),                   # much faster than real time
        ([0.1, 0.3, 0.5, 0.7], [0.1] * 4),                       # at half of real time
        ([0.2, 0.25, 0.75, 0.78, 0.8], [0.1] * 5),               # one delay in the middle
        ([1.0, 1.3, 1.35, 1.4], [0.2, 0.1, 0.3, 0.05]),          # chunks of many lengths
        ([0.4], [0.1]),                                          # a single chunk
    ]
    for ready_s, lengths_s in cases:
        got = attempt(list(ready_s), list(lengths_s))
        if not isinstance(got, int | float | np.floating):
            raise Wrong(f"It should return seconds, a number; yours returns {type(got).__name__}.")
        if got < 0:
            raise Wrong(f"Playback cannot begin before the first chunk: never less than 0, yours is {got:.3f}.")
        turns = [sum(lengths_s[:i]) for i in range(len(ready_s))]
        waits = [ready - ready_s[0] - turn for ready, turn in zip(ready_s, turns, strict=True)]
        late = max(range(len(waits)), key=waits.__getitem__)
        if got < waits[late] - 1e-6:
            raise Wrong(f"With ready_s={ready_s} and a delay of {got:.3f} s there is a gap: chunk {late} is ready "
                        f"{ready_s[late] - ready_s[0]:.3f} s after the first, but should play after "
                        f"{turns[late] + got:.3f} s.")
        if got > max(0.0, waits[late]) + 1e-6:
            raise Wrong(f"With ready_s={ready_s} a delay of {got:.3f} s is safe, but {max(0.0, waits[late]):.3f} s "
                        "is enough: count from the moment when the first chunk is ready.")


@exercise("two_rows")
def two_rows(attempt: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """attempt(text_id, audio_ids, pad_a): the next input of both batch rows, text (2, 1) and audio (2, 7, 1)."""
    for seed in range(3):
        audio_ids = torch.randint(0, 1000, (7,), generator=seeded(seed)).tolist()
        found = attempt(42 + seed, audio_ids, 1025)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong("It should return two tensors: the ids of the text stream and of the seven audio streams.")
        text, audio = found
        same(text, torch.full((2, 1), 42 + seed), "The text, which is the same in both batch rows,")
        same(audio[:1] if isinstance(audio, Tensor) and audio.dim() else audio, torch.tensor(audio_ids)[None, :, None],
             "The audio of batch row 0, its own last codes,")
        same(audio, torch.stack([torch.tensor(audio_ids), torch.full((7,), 1025)])[..., None],
             "The audio of both batch rows (row 1 is silent: it only writes)")


@exercise("crossfade")
def crossfade(attempt: Callable[..., Tensor]) -> None:
    """attempt(pieces, overlap): join pieces (N_i,) that share `overlap` samples with the next one, by crossfading."""
    whole = torch.randn(1000, generator=seeded(1))
    starts, overlap = [0, 300, 620], 40
    ends = [300 + overlap, 620 + overlap, 1000]
    same(attempt([whole[a:b] for a, b in zip(starts, ends, strict=True)], overlap), whole,
         "For pieces with equal shared samples, the joined sound")
    faded = attempt([torch.zeros(100), torch.ones(100)], overlap)
    if not isinstance(faded, Tensor) or faded.shape != (160,):
        raise Wrong("Two pieces of 100 samples that share 40 should make 160 samples.")
    if faded[:60].abs().max() > 1e-5 or (faded[100:] - 1).abs().max() > 1e-5:
        raise Wrong("Do not change the samples that are not shared.")
    ramp = faded[60:100]
    if (ramp.diff() < -1e-5).any() or ramp[0] > 0.2 or ramp[-1] < 0.8:
        raise Wrong("From a piece of zeros to a piece of ones the shared samples should rise steadily from 0 to 1; "
                    f"yours begin at {ramp[0].item():.2f} and end at {ramp[-1].item():.2f}.")


@exercise("nucleus")
def nucleus(attempt: Callable[..., Tensor]) -> None:
    """attempt(p, top_p): keep the most likely ids that together reach top_p, scaled to sum 1; others get 0."""
    for seed, top_p in ((0, 0.9), (1, 0.5), (2, 1.0), (3, 0.01)):
        p = (3 * torch.randn(20, generator=seeded(seed))).softmax(0)
        order = p.argsort(descending=True)
        before = p[order].cumsum(0) - p[order]                   # the sum of the more likely ids
        kept = torch.zeros_like(p, dtype=torch.bool)
        kept[order[before < top_p]] = True
        got = attempt(p.clone(), top_p)
        if isinstance(got, Tensor) and got.shape == p.shape:
            if not (got > 0).any():
                raise Wrong(f"With top_p {top_p} you keep nothing: always keep the most likely id.")
            if (got > 0).sum() == kept.sum() - 1:
                raise Wrong(f"With top_p {top_p} you keep one id too few: keep the id that reaches top_p too.")
            if ((got > 0) == kept).all() and abs(float(got.sum()) - 1) > 1e-4:
                raise Wrong(f"You keep the right ids, but their sum is {float(got.sum()):.3f}: scale it back to 1.")
        same(got, torch.where(kept, p, 0) / p[kept].sum(), f"With top_p {top_p} the probabilities", 1e-4)


# --- notebook 09 ---


def _kinds(reference: Sequence[str], hypothesis: Sequence[str]) -> set[tuple[int, int, int]]:
    """(substitutions, deletions, insertions) of all alignments with the fewest edits."""
    n, m = len(reference), len(hypothesis)
    best: dict[tuple[int, int], set[tuple[int, int, int]]] = {(0, 0): {(0, 0, 0)}}
    for i in range(n + 1):
        for j in range(m + 1):
            if i == j == 0:
                continue
            found: set[tuple[int, int, int]] = set()
            if i and j:
                wrong = reference[i - 1] != hypothesis[j - 1]
                found |= {(s + wrong, d, k) for s, d, k in best[i - 1, j - 1]}
            if i:
                found |= {(s, d + 1, k) for s, d, k in best[i - 1, j]}
            if j:
                found |= {(s, d, k + 1) for s, d, k in best[i, j - 1]}
            least = min(map(sum, found))
            best[i, j] = {counts for counts in found if sum(counts) == least}
    return best[n, m]


@exercise("error_kinds")
def error_kinds(attempt: Callable[..., tuple[int, int, int]]) -> None:
    """attempt(reference, hypothesis), lists of words: (substitutions, deletions, insertions) with the fewest edits."""
    pairs = [
        ("the cat sat", "the cat sat"), ("the cat sat", "the hat sat"), ("the cat sat", "the sat"),
        ("the cat sat", "the black cat sat"), ("", "hello there"), ("hello there", ""),
        ("one plus two is three", "one plus to is a tree"), ("a b c d", "b c d e"), ("say it now", "say that it know"),
    ]
    for said, wrote in pairs:
        got = attempt(said.split(), wrote.split())
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong("It should return three counts: substitutions, deletions, insertions.")
        right, where = _kinds(said.split(), wrote.split()), f'From "{said}" to "{wrote}"'
        least = sum(next(iter(right)))
        if sum(got) != least:
            raise Wrong(f"{where} the fewest edits are {least}, your counts add up to {sum(got)}.")
        if got[2] - got[1] != len(wrote.split()) - len(said.split()):
            raise Wrong(f"{where} insertions minus deletions must be the difference of the lengths, "
                        f"{len(wrote.split()) - len(said.split())}; yours is {got[2] - got[1]}: are the two swapped?")
        if tuple(got) not in right:
            raise Wrong(f"{where} {got[0]} substitutions, {got[1]} deletions and {got[2]} insertions are not possible.")


@exercise("sample_size")
def sample_size(attempt: Callable[..., int]) -> None:
    """attempt(p, half): the fewest clips for a Wilson interval of a share p at most 2 * half wide."""

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
            raise Wrong(f"For a share of {p} and ±{half} it takes {wanted} clips. With your {got} the interval is "
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
            raise Wrong(f"If only the first is right {only_a} times and only the second {only_b} times, the p-value is "
                        f"{wanted:.5f}, yours is {got:.5f}.{hint}")


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
    """attempt(table, extra): an embedding table with `extra` more rows, each the mean of the old rows."""
    table = torch.randn(50, 8, generator=seeded()) + 3
    before = table.clone()
    got = attempt(table, 6)
    if not torch.equal(table, before):
        raise Wrong("You changed the old table itself: make a new one.")
    if isinstance(got, Tensor) and got.shape == (56, 8) and not torch.equal(got[:50], before):
        raise Wrong("Keep the old rows bit for bit: the text path depends on them.")
    same(got, torch.cat([before, before.mean(0).expand(6, -1)]), "The longer table")


@exercise("split_groups")
def split_groups(attempt: Callable[..., Any]) -> None:
    """attempt(fused, heads, groups): split the release's fused matrix into queries, keys and values."""
    from omni_lite.interop import release

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
                    raise Wrong(f"You take the {name} as one block of rows, but the matrix goes group by group: "
                                "q q k v, then q q k v.")
            same(got, one, f"With {heads} heads in {groups} groups the {name}")


@exercise("keeps_up")
def keeps_up(attempt: Callable[..., str | None]) -> None:
    """attempt(parameters, bandwidth_gb_s): the most precise of fp32, bf16, int8 that keeps up with speech, or None.

    A step reads every parameter once and must fit into one frame's time.
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
            raise Wrong(f"{parameters / 1e6:,.0f} million parameters at {bandwidth_gb_s:g} GB/s: steps take {floors}. "
                        f"A frame lasts {1000 * FRAME_SECONDS:.1f} ms, so the answer is {wanted!r}, yours is {got!r}.")
