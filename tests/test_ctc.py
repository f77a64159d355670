"""CTC against sums over all paths and against torch, alignment, and distillation from several teachers."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from omni_lite.data import Heard, gather
from omni_lite.model import OmniModel
from omni_lite.recipes.ctc import (
    CTC,
    Distillation,
    TaughtBy,
    ctc_loss,
    least_positions,
    spoken_when,
    teaching_loss,
    turns_of,
)
from omni_lite.recipes.lite.items import LiteItem
from omni_lite.streams import Task
from omni_lite.train import omni_loss
from tests.training import TINY, VOCAB, small_corpus


def read(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """What a path says: runs of the same column are one token, blanks are none."""
    return tuple(token for i, token in enumerate(path) if token != blank and (i == 0 or path[i - 1] != token))


def nats(log_probs: torch.Tensor, said: tuple[int, ...]) -> float:
    """-log of the sum over every path that says this, by enumeration: (n, V + 1) -> nats a token."""
    n, columns = log_probs.shape
    paths = [path for path in itertools.product(range(columns), repeat=n) if read(path, columns - 1) == said]
    scores = torch.stack([log_probs[torch.arange(n), torch.tensor(path)].sum() for path in paths])
    return -float(scores.logsumexp(0)) / len(said)


def torchs(log_probs: torch.Tensor, lengths: torch.Tensor, said: list[tuple[int, ...]]) -> torch.Tensor:
    """`F.ctc_loss` on all columns: nats a token, mean over the questions that say something."""
    heard = [row for row, tokens in enumerate(said) if tokens]
    return F.ctc_loss(log_probs[heard].transpose(0, 1), torch.tensor([t for tokens in said for t in tokens]),
                      lengths[heard], torch.tensor([len(said[row]) for row in heard]), blank=log_probs.shape[-1] - 1,
                      zero_infinity=True)


# --- the loss ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1.0, 5_000.0])
def test_ctc_is_the_sum_over_all_placements(spread):
    """Also where the likeliest path is thousands of nats away."""
    torch.manual_seed(0)
    log_probs = (spread * torch.randn(3, 4, 4)).log_softmax(-1)            # 3 tokens and none; 4, 3, 4 positions
    said, lengths = [(0, 2), (1,), (2, 2)], torch.tensor([4, 3, 4])
    expected = [nats(log_probs[row, : lengths[row]], said[row]) for row in range(3)]
    assert ctc_loss(log_probs, lengths, said).item() == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert ctc_loss(log_probs, lengths, [said[0], (), ()]).item() == pytest.approx(expected[0], rel=1e-5)
    assert spread < 2 or sum(expected) / 3 > 2_500                         # more than 5,000 nats a question


SAID = [(3, 5, 5, 2), (1,), (), (2, 4, 2), (1, 2, 3), (6, 6, 6)]           # repeated tokens; the last two have no room
LENGTHS = torch.tensor([7, 3, 5, 6, 2, 4])


@pytest.mark.parametrize("spread", [1.0, 30.0, 2_000.0])
def test_ctc_and_its_gradient_are_those_of_torch(spread):
    generator = torch.Generator().manual_seed(1)
    start = spread * torch.randn(6, 7, 9, generator=generator)
    ours, theirs = (start.clone().requires_grad_() for _ in "ab")
    got, want = (loss(x.log_softmax(-1), LENGTHS, SAID) for loss, x in ((ctc_loss, ours), (torchs, theirs)))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    got.backward()
    want.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 if spread < 1_000 else 1e-3)
    assert ours.grad.abs().sum() > 0 and not ours.grad[4:].any()


def test_a_long_question_that_is_heard_wrongly_is_not_taken_for_a_perfect_one():
    """600 positions that are all sure of other tokens: far above 5,000 nats, with a gradient at each position."""
    torch.manual_seed(0)
    logits = 40 * torch.randn(1, 600, 9)
    logits[..., :3] -= 60
    ours, theirs = (logits.clone().requires_grad_() for _ in "ab")
    said, lengths = [(0, 1, 2, 2, 1)], torch.tensor([600])
    got, want = (loss(x.log_softmax(-1), lengths, said) for loss, x in ((ctc_loss, ours), (torchs, theirs)))
    assert got.item() * len(said[0]) > 5_000
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3)
    got.backward()
    want.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-2)         # few digits are left
    assert (ours.grad.abs().sum(-1) > 0).float().mean() > 0.9


def test_questions_without_room_count_as_nothing():
    torch.manual_seed(0)
    log_probs = torch.randn(2, 4, 5).log_softmax(-1).requires_grad_()
    assert least_positions([(1, 2, 3), (1, 1, 1), ()]).tolist() == [3, 5, 0]
    loss = ctc_loss(log_probs, torch.tensor([2, 4]), [(1, 2, 3), (1, 1, 1)])
    assert loss == 0
    loss.backward()
    assert not log_probs.grad.any() and log_probs.grad.isfinite().all()
    both = ctc_loss(log_probs, torch.tensor([2, 4]), [(1, 2, 3), (1, 2)])
    alone = ctc_loss(log_probs, torch.tensor([2, 4]), [(), (1, 2)])
    torch.testing.assert_close(both, alone / 2)          # 0 for the one, and the mean of both
    assert ctc_loss(log_probs, torch.tensor([2, 4]), [(), ()]) == 0


def test_probabilities_need_not_sum_to_one():
    """The columns of the labels alone are normalised on the way, so a part of all columns gives the same."""
    torch.manual_seed(0)
    log_probs = torch.randn(1, 6, 5).log_softmax(-1)
    lower = log_probs - 2.0                              # each of 6 positions passes one column
    torch.testing.assert_close(ctc_loss(lower, torch.tensor([6]), [(1, 3)]),
                               ctc_loss(log_probs, torch.tensor([6]), [(1, 3)]) + 6 * 2.0 / 2)


# --- alignment ---------------------------------------------------------------------------------------------


def test_words_are_found_where_the_likeliest_path_of_ctc_says_them():
    torch.manual_seed(0)
    said = [(3,), (3, 5), (3, 3), (2, 5, 2), (), (1, 2, 3)]
    positions = torch.tensor([6, 5, 6, 4, 6, 2])
    log_probs = (3 * torch.randn(6, 6, 9)).log_softmax(-1)
    found = spoken_when(log_probs, positions, said)
    for row, tokens in enumerate(said[:4]):
        n, blank = int(positions[row]), 8
        paths = [path for path in itertools.product((*set(tokens), blank), repeat=n) if read(path, blank) == tokens]
        best = max(paths, key=lambda path: sum(log_probs[row, i, token].item() for i, token in enumerate(path)))
        runs = [[i for i, _ in run] for token, run in itertools.groupby(enumerate(best), key=lambda pair: pair[1])
                if token != blank]
        assert found[row].tolist() == pytest.approx([sum(run) / len(run) for run in runs])
        ends = turns_of(found[row], n)
        assert ends[-1] == n and (ends.diff() >= 0).all()
    assert found[4] is None and found[5] is None         # nothing is said; no room for three in two positions


# --- as auxiliary losses -----------------------------------------------------------------------------------


def clip_of(length: int = 8) -> Heard:
    """One spoken question of two tokens."""
    item = LiteItem(Task.A1T1, (3, 5), (3, 5), clip=0)
    batch = gather([item], [item.lay_out(VOCAB, length // 2)], VOCAB, None).batch
    return Heard(batch, torch.randn(1, length, 8), torch.tensor([length]), [item])


def test_ctc_reaches_the_adapter_and_nothing_else():
    torch.manual_seed(0)
    model, heard = OmniModel(TINY), clip_of()
    plain, more = omni_loss(model, heard), omni_loss(model, heard, losses=[CTC(0.3)])
    torch.testing.assert_close(more["loss"], plain["loss"] + 0.3 * more["ctc"])
    alone = omni_loss(model, heard, rows=(), losses=[CTC(0.3)])
    torch.testing.assert_close(alone["loss"], 0.3 * more["ctc"])
    more["ctc"].backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"asr_adapter"}


def test_ctc_leaves_a_batch_alone_that_hears_nothing(tmp_path):
    corpus, item = small_corpus(tmp_path), LiteItem(Task.T1T2, (3, 5), (3, 5))
    written = gather([item], [item.lay_out(VOCAB, 0)], VOCAB, corpus.store)
    assert "ctc" not in omni_loss(OmniModel(TINY), written, losses=[CTC(1.0), Distillation()])


def test_an_adapter_that_equals_its_teachers_learns_nothing_from_them():
    torch.manual_seed(0)
    model = OmniModel(TINY)
    teachers = tuple(OmniModel(TINY).asr_adapter.eval() for _ in range(2))
    heard = Heard(clip_of().batch, torch.randn(2, 8, 8), torch.tensor([4, 2]), ())
    positions = torch.tensor([2, 1])
    shown = TaughtBy(teachers, stack=2)(heard, VOCAB).notes["taught"]
    one, other = (teacher(heard.features, positions) for teacher in teachers)
    torch.testing.assert_close(shown, (one + other) / 2, rtol=0.02, atol=0.02)         # they run in bfloat16
    assert not shown.requires_grad
    torch.testing.assert_close(teaching_loss(model, shown, positions, shown), torch.tensor(0.0), rtol=0, atol=1e-5)

    adapted = model.asr_adapter(heard.features, positions)
    p, q = (model.likeness(each)[0] for each in (shown, adapted))
    divergence = (p.exp() * (p - q)).sum(-1)                                           # (2, 4)
    wanted = (divergence[0, :2].sum() + divergence[1, 0]) / 3                          # three positions are no padding
    loss = teaching_loss(model, adapted, positions, shown)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"asr_adapter"}


def test_distillation_adds_what_the_transform_noted():
    torch.manual_seed(0)
    model, clip = OmniModel(TINY), clip_of()
    taught = TaughtBy((OmniModel(TINY).asr_adapter.eval(),), stack=2)(clip, VOCAB)
    plain = omni_loss(model, clip, rows=(), losses=[CTC(0.3), Distillation()])          # nothing was noted
    more = omni_loss(model, taught, rows=(), losses=[CTC(0.3), Distillation(0.5)])
    assert "taught" not in plain and more["taught"] > 0 and math.isfinite(more["taught"])
    torch.testing.assert_close(more["loss"], plain["loss"] + 0.5 * more["taught"])
