"""The checks of notebooks 08 to 10: right for the right answer, a fitting sentence for two typical wrong ones."""

import math

import pytest
import torch

from omni_lite.course import checks
from omni_lite.interop import release
from omni_lite.vocab import FRAME_SECONDS


def last_line(capsys) -> str:
    return capsys.readouterr().out.strip().splitlines()[-1]


ALL = ("start_delay", "two_rows", "crossfade", "nucleus", "error_kinds", "sample_size", "mcnemar", "split_pack",
       "new_rows", "split_groups", "keeps_up")


@pytest.mark.parametrize("name", ALL)
def test_a_stub_is_not_tried_and_broken_code_is_told(name, capsys):
    assert getattr(checks, name)(None) is None
    assert last_line(capsys) == f"{name}: not tried yet"
    assert getattr(checks, name)(lambda *_: 1 / 0) is False
    assert "ZeroDivisionError" in last_line(capsys)


# --- 08 -------------------------------------------------------------------------------------------------


def delay(ready_s, lengths_s):
    waits = [ready - ready_s[0] - sum(lengths_s[:i]) for i, ready in enumerate(ready_s)]
    return max(0.0, *waits) if len(waits) > 1 else 0.0


def two_rows(text_id, audio_ids, pad_a):
    audio = torch.tensor([list(audio_ids), [pad_a] * 7])[..., None]
    return torch.full((2, 1), text_id), audio


def crossfade(pieces, overlap):
    out = pieces[0]
    ramp = torch.linspace(0, 1, overlap)
    for piece in pieces[1:]:
        shared = out[-overlap:] * (1 - ramp) + piece[:overlap] * ramp
        out = torch.cat([out[:-overlap], shared, piece[overlap:]])
    return out


def nucleus(p, top_p):
    order = p.argsort(descending=True)
    before = p[order].cumsum(0) - p[order]
    out = torch.zeros_like(p)
    out[order[before < top_p]] = p[order[before < top_p]]
    return out / out.sum()


# --- 09 -------------------------------------------------------------------------------------------------


def error_kinds(reference, hypothesis):
    rows = [[(j, 0, 0, j) for j in range(len(hypothesis) + 1)]]
    for i, said in enumerate(reference):
        row = [(i + 1, 0, i + 1, 0)]
        for j, wrote in enumerate(hypothesis):
            wrong = int(said != wrote)
            (a, s, d, k), (b, s2, d2, k2), (c, s3, d3, k3) = rows[i][j], rows[i][j + 1], row[j]
            row.append(min((a + wrong, s + wrong, d, k), (b + 1, s2, d2 + 1, k2), (c + 1, s3, d3, k3 + 1)))
        rows.append(row)
    return rows[-1][-1][1:]


def sample_size(p, half):
    n, z = 1, 1.96
    while z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) > half:
        n += 1
    return n


def mcnemar(right_a, right_b, sides=2):
    a = sum(x and not y for x, y in zip(right_a, right_b, strict=True))
    b = sum(y and not x for x, y in zip(right_a, right_b, strict=True))
    return min(1.0, sides * sum(math.comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b))


# --- 10 -------------------------------------------------------------------------------------------------


def new_rows(table, extra):
    return torch.cat([table, table.mean(0, keepdim=True).repeat(extra, 1)])


def split_groups(fused, heads, groups):
    size = len(fused) // (heads + 2 * groups)
    q, k, v = [], [], []
    for group in fused.split((heads // groups + 2) * size):
        q.append(group[: -2 * size])
        k.append(group[-2 * size : -size])
        v.append(group[-size:])
    return torch.cat(q), torch.cat(k), torch.cat(v)


def keeps_up(parameters, bandwidth_gb_s):
    for name, size in (("fp32", 4), ("bf16", 2), ("int8", 1)):
        if parameters * size / bandwidth_gb_s / 1e9 <= FRAME_SECONDS:
            return name
    return None


RIGHT = dict(start_delay=delay, two_rows=two_rows, crossfade=crossfade, nucleus=nucleus, error_kinds=error_kinds,
             sample_size=sample_size, mcnemar=mcnemar, split_pack=lambda w: w.chunk(3), new_rows=new_rows,
             split_groups=split_groups, keeps_up=keeps_up)


@pytest.mark.parametrize("name", ALL)
def test_the_right_answer_is_right(name, capsys):
    assert getattr(checks, name)(RIGHT[name]) is True
    assert last_line(capsys) == f"{name}: right"


def in_place(table, extra):
    table += 1
    return new_rows(table, extra)


def in_one_piece(fused, heads, groups):
    size = len(fused) // (heads + 2 * groups)
    return fused.split([heads * size, groups * size, groups * size])


def keep_too_few(p, top_p):
    order = p.argsort(descending=True)
    out = torch.zeros_like(p)
    kept = order[p[order].cumsum(0) < top_p]
    out[kept] = p[kept]
    return out / out.sum()


@pytest.mark.parametrize("name, wrong, words", [
    ("start_delay", lambda ready, lengths: 0.0, "there is a gap: chunk 3"),
    ("start_delay", lambda ready, lengths: max(ready), "is safe, but 0.000 s is enough"),
    ("start_delay", lambda ready, lengths: ready[-1] - ready[0] - sum(lengths[:-1]), "never less than 0"),
    ("two_rows", lambda t, a, p: (torch.full((2, 1), t), torch.tensor([a, a])[..., None]), "it only writes"),
    ("two_rows", lambda t, a, p: (torch.full((2,), t), two_rows(t, a, p)[1]), "should have shape (2, 1)"),
    ("crossfade", lambda pieces, n: torch.cat(pieces), "should have shape (1000,)"),
    ("crossfade", lambda pieces, n: torch.cat([pieces[0], *[one[n:] for one in pieces[1:]]]), "rise steadily"),
    ("nucleus", keep_too_few, "one id too few"),
    ("nucleus", lambda p, top_p: nucleus(p, top_p) * p[nucleus(p, top_p) > 0].sum(), "scale it back to 1"),
    ("error_kinds", lambda r, h: (0, abs(len(r) - len(h)), 0), "the fewest edits are 1"),
    ("error_kinds", lambda r, h: tuple(error_kinds(r, h)[i] for i in (0, 2, 1)), "are the two swapped?"),
    ("sample_size", lambda p, half: math.ceil(1.96**2 * p * (1 - p) / half**2), "it takes"),
    ("sample_size", lambda p, half: 0.5 / half, "a whole number of clips"),
    ("mcnemar", lambda a, b: mcnemar(a, b, sides=1), "two-sided means"),
    ("mcnemar", lambda a, b: abs(sum(a) - sum(b)) / len(a), "the p-value is"),
    ("split_pack", lambda w: (w, w, w), "The matrix of the queries should have shape (4, 4)"),
    ("split_pack", lambda w: w.chunk(3)[::-1], "The matrix of the queries differs"),
    ("new_rows", in_place, "You changed the old table itself"),
    ("new_rows", lambda table, extra: torch.cat([table, torch.zeros(extra, 8)]), "The longer table differs"),
    ("split_groups", in_one_piece, "q q k v, then q q k v"),
    ("split_groups", lambda f, h, g: split_groups(f, h, g)[::-1], "the queries should have shape"),
    ("keeps_up", lambda n, gb: "int8", "so the answer is 'fp32'"),
    ("keeps_up", lambda n, gb: 4, "It should return"),
])
def test_wrong_answers_are_explained(name, wrong, words, capsys):
    assert getattr(checks, name)(wrong) is False
    line = last_line(capsys)
    assert line.startswith(f"{name}: not yet.") and words in line, line


def test_the_reference_of_split_groups_is_the_library():
    fused = torch.arange(24.0).view(8, 3)
    for ours, theirs in zip(split_groups(fused, 4, 2), release.split_groups(fused, 4, 2), strict=True):
        assert torch.equal(ours, theirs)
