"""What the voice rehearses at a tiny size: what is clear, in what shares, and that nothing else changes."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from omni_lite.likeness import HeardWord
from omni_lite.model import OmniModel
from omni_lite.preference import Renditions, Typed
from omni_lite.rehearsal import MOST, REHEARSAL, clear_ones, doubt, lessons_of, rehearse
from tests.test_train import TINY, Letters

PLAN = replace(REHEARSAL, name="tiny", steps=3, rare=0.5, own=0.25)


def heard(*words):
    return [HeardWord(text, nats, 0.0, 1.0) for text, nats in words]


def test_numbers_do_not_count_and_what_is_lost_counts_once():
    assert doubt(heard(("Six", 3.0), ("plus", 0.1), ("eight,", 9.0), ("", 0.3))) == pytest.approx(0.2)
    assert doubt(heard(("gosling.", 40.0), ("", 0.0))) == MOST / 2


def test_the_clearer_half_is_kept_where_it_is_clear():
    codes = [torch.full((7, 2), i, dtype=torch.int16) for i in range(4)]
    said = [Renditions(Typed((1,), (2,), "A cat."), codes, [heard(("cat.", n)) for n in (0.5, 0.1, 3.0, 0.7)]),
            Renditions(Typed((3,), (4,), "An owl."), codes, [heard(("owl.", n)) for n in (2.0, 0.2, 0.9, 4.0)]),
            Renditions(Typed((5,), (6,), "No."), codes[:1], [heard(("No.", 2.0))])]
    kept = clear_ones(said, 0.6)
    assert [(question, answer, int(row[0, 0])) for question, answer, row in kept] == [
        ((1,), (2,), 1), ((1,), (2,), 0), ((3,), (4,), 1)]
    assert all(row.dtype == torch.int64 for _, _, row in kept)


def test_each_pile_has_its_share_and_each_lesson_comes_equally_often():
    piles = {name: [((i,), (n,), torch.zeros(7, 1)) for i in range(count)]
             for n, (name, count) in enumerate(dict(rare=4, own=5, recorded=10).items())}
    often = Counter((answer, question) for question, answer, _ in lessons_of(piles, PLAN, 40))
    assert [sum(count for (answer, _), count in often.items() if answer == (n,)) for n in range(3)] == [20, 10, 10]
    assert {often[(0,), (i,)] for i in range(4)} == {5} and {often[(1,), (i,)] for i in range(5)} == {2}
    with pytest.raises(ValueError, match="nothing own to rehearse: let its share be zero in tiny"):
        lessons_of(piles | dict(own=[]), PLAN)
    assert len(lessons_of(piles | dict(own=[]), replace(PLAN, own=0.0), 40)) == 40


def test_the_voice_learns_and_nothing_else_does(tmp_path):
    torch.manual_seed(0)
    model, codes = OmniModel(TINY), torch.randint(16, (7, 5))
    before, shown = {name: p.clone() for name, p in model.named_parameters()}, []
    piles = dict(rare=[((1, 2), (3, 4), codes)], own=[((5,), (6,), codes[:, :3])], recorded=[((7,), (8,), codes)])
    rehearse(model, Letters(), [(1, 2), (9,)], piles, {(3, 4): [codes, codes[:, 1:]]}, tmp_path, PLAN, shown.append)
    assert shown[0] == "tiny  1 rare, 1 own, 1 recorded" and "step 3/3" in shown[-1]
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"tts_adapter"}


def test_the_voice_goes_a_part_of_the_way(tmp_path):
    ends = {}
    for way in (0.0, 0.3, 1.0):
        torch.manual_seed(0)
        model, codes = OmniModel(TINY), torch.randint(16, (7, 5))
        plan = replace(PLAN, name=f"way {way}", rare=1.0, own=0.0, way=way)
        piles = dict(rare=[((1,), (3, 4), codes)], own=[], recorded=[])
        rehearse(model, Letters(), [(1, 2)], piles, {}, tmp_path, plan, lambda _: None)
        ends[way] = model.tts_adapter.head.weight.detach()
    assert not torch.equal(ends[0.0], ends[1.0])
    torch.testing.assert_close(ends[0.3], 0.7 * ends[0.0] + 0.3 * ends[1.0])
