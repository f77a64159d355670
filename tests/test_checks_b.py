"""The checks of notebooks 04 to 07: right for the right answer, the right sentence for typical wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omni_lite.course import checks
from omni_lite.course.checks.parts import _tiny_model
from omni_lite.loop import cosine


def says(capsys: pytest.CaptureFixture[str], check, attempt, words: str) -> None:
    """The check calls the attempt wrong, and its sentence has these words."""
    assert check(attempt) is False
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("check", [
    checks.mean_of_eight, checks.trunk_parameters, checks.one_step_at_a_time, checks.where_gradients_go,
    checks.stacking, checks.freezing, checks.whose_turn, checks.learning_rate, checks.learning_shares,
    checks.kept_lost_won, checks.two_mouths_loss, checks.draw_code, checks.paired_bootstrap,
])
def test_an_untouched_stub_is_neither_right_nor_wrong(check, capsys):
    assert check(None) is None
    assert "not tried yet" in capsys.readouterr().out


# --- notebook 04 ---


def test_mean_of_eight(capsys):
    def rows(text_table, audio_table, text_ids, audio_ids, shift=True):
        bands = torch.arange(7)[:, None] * (len(audio_table) // 7) * shift
        return [text_table[text_ids], *audio_table[audio_ids + bands].unbind(1)]

    assert checks.mean_of_eight(lambda *a: torch.stack(rows(*a)).mean(0))
    says(capsys, checks.mean_of_eight, lambda *a: torch.stack(rows(*a)).sum(0), "sum of the eight")
    says(capsys, checks.mean_of_eight, lambda *a: torch.stack(rows(*a, shift=False)).mean(0), "layer shift")
    says(capsys, checks.mean_of_eight, lambda *a: torch.stack(rows(*a)).mean(0)[0], "should have shape")


def count(width, mlp, layers, heads, kv_heads, kv_rows=None, biases=True, last=True):
    kv = width * (kv_heads if kv_rows is None else heads) // heads
    block = 2 * width**2 + 2 * width * kv + (width + 2 * kv) * biases + 3 * width * mlp + 2 * width
    return layers * block + width * last


def test_trunk_parameters(capsys):
    assert checks.trunk_parameters(count)
    says(capsys, checks.trunk_parameters, lambda *a: count(*a, last=False), "norm after the last block")
    says(capsys, checks.trunk_parameters, lambda *a: count(*a, biases=False), "biases of the queries")
    says(capsys, checks.trunk_parameters, lambda *a: count(*a, kv_rows="all"), "narrower than queries")
    says(capsys, checks.trunk_parameters, lambda *a: 7, "yours are 7")


def test_one_step_at_a_time(capsys):
    def stepwise(model, x, fresh=False):
        cache, out = model.new_cache(), []
        for s in range(x.shape[1]):
            out.append(model.run(x[:, s : s + 1], model.new_cache() if fresh else cache))
        return torch.cat(out, dim=1)

    assert checks.one_step_at_a_time(stepwise)
    says(capsys, checks.one_step_at_a_time, lambda model, x: model.run(x), "7 steps in one call")
    says(capsys, checks.one_step_at_a_time, lambda model, x: stepwise(model, x, fresh=True), "saw only itself")


def test_where_gradients_go_is_what_a_backward_pass_finds(capsys):
    from omni_lite.data import Heard
    from omni_lite.streams import TASKS, collate, example
    from omni_lite.train import omni_loss

    model, found = _tiny_model(), {}
    vocab = model.config.vocab
    for task in TASKS:
        one = example(vocab, task, question_text=None if task.hears else [1, 2], positions=3 if task.hears else None,
                      answer_text=[3, 4], answer_codes=torch.ones(7, 4, dtype=torch.int64) if task.speaks else None)
        heard = Heard(collate([one], vocab), torch.randn(1, 6, 8) if task.hears else None,
                      torch.tensor([6]) if task.hears else None)
        model.zero_grad(set_to_none=True)
        omni_loss(model, heard)["loss"].backward()
        found[str(task)] = {name for name, part in model.named_children()
                            if any(p.grad is not None and p.grad.any() for p in part.parameters())}
    assert checks.where_gradients_go(found)
    says(capsys, checks.where_gradients_go, found | {"T1T2": {"text_embed", "trunk"}}, "audio stream is not zero")
    says(capsys, checks.where_gradients_go, found | {"A1T1": found["A1A2"]}, "no loss comes through the tts_adapter")
    says(capsys, checks.where_gradients_go, found | {"A1A2": found["A1T2"]}, "also reaches tts_adapter")
    says(capsys, checks.where_gradients_go, {"A1A2": set()}, "five tasks as keys")


# --- notebook 05 ---


def stack(features: Tensor, size: int) -> Tensor:
    B, T, D = features.shape
    return F.pad(features, (0, 0, 0, -T % size)).reshape(B, -1, size * D)


def test_stacking(capsys):
    assert checks.stacking(stack)
    says(capsys, checks.stacking, lambda x, n: stack(x[:, : x.shape[1] // n * n], n), "a rest, and you lose it")
    says(capsys, checks.stacking,
         lambda x, n: stack(x, n).unflatten(-1, (n, -1)).transpose(2, 3).flatten(2), "interleaved")


def test_freezing(capsys):
    def freeze(model, names, thaw=True, everything=False):
        for name, part in model.named_children():
            part.requires_grad_((name in names) if thaw else part.weight.requires_grad and name in names)
        return [p for p in model.parameters() if p.requires_grad or everything]

    def only_thaw(model, names):
        for name, part in model.named_children():
            if name in names:
                part.requires_grad_(True)
        return [p for p in model.parameters() if p.requires_grad]

    assert checks.freezing(freeze)
    says(capsys, checks.freezing, only_thaw, "still takes gradients")
    says(capsys, checks.freezing, lambda *a: freeze(*a, thaw=False), "takes no gradients")
    says(capsys, checks.freezing, lambda *a: freeze(*a, everything=True), "return exactly the parameters")


def test_whose_turn(capsys):
    def turn(sizes, frames, at=0.5):
        ends = torch.tensor(sizes, dtype=torch.float64).cumsum(0) / sum(sizes)
        now = (torch.arange(frames, dtype=torch.float64) + at) / frames
        return torch.searchsorted(ends, now, right=True).clamp(max=len(sizes) - 1)

    assert checks.whose_turn(turn)
    says(capsys, checks.whose_turn, lambda *a: turn(*a, at=0.0), "ask for its middle")
    says(capsys, checks.whose_turn, lambda sizes, T: (torch.arange(T) * len(sizes)) // T, "every token the same time")


# --- notebook 06 ---


def test_learning_rate(capsys):
    assert checks.learning_rate(cosine)
    says(capsys, checks.learning_rate, lambda step, steps, peak, end, warmup: cosine(step, steps, peak, end, 0),
         "in the warm-up")
    says(capsys, checks.learning_rate, lambda step, steps, peak, end, warmup: cosine(step, steps, peak, 0.0, warmup),
         "falls to 0")
    says(capsys, checks.learning_rate,
         lambda step, steps, peak, end, warmup: peak * step / warmup if step < warmup else 1.0, "changes nothing")

    def from_zero(step, steps, peak, end, warmup):
        return cosine(step, steps, peak, end, warmup if step < warmup else 0)

    says(capsys, checks.learning_rate, from_zero, "begins where the warm-up ends")


def test_learning_shares(capsys):
    def shares(mixture, targets, divide=True):
        weighed = {kind: mixture[kind] * targets[kind] for kind in mixture}
        return {kind: weight / (sum(weighed.values()) if divide else 1) for kind, weight in weighed.items()}

    assert checks.learning_shares(shares)
    says(capsys, checks.learning_shares, lambda *a: shares(*a, divide=False), "add up to 1")
    says(capsys, checks.learning_shares, lambda mixture, _: shares(mixture, dict.fromkeys(mixture, 1)),
         "shares of the items")


def test_kept_lost_won(capsys):
    def counts(before, after):
        pairs = list(zip(before, after, strict=True))
        return pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))

    assert checks.kept_lost_won(counts)
    says(capsys, checks.kept_lost_won, lambda b, a: counts(a, b), "Swap lost and won")
    says(capsys, checks.kept_lost_won, lambda b, a: (sum(a), *counts(b, a)[1:]), "right before as well")
    says(capsys, checks.kept_lost_won, lambda b, a: (2, max(0, sum(b) - sum(a)), max(0, sum(a) - sum(b))), "subtracted")


# --- notebook 07 ---


def test_two_mouths_loss(capsys):
    def loss(text_logits, audio_logits, text_target, audio_target, streams=None, words=True):
        text = F.cross_entropy(text_logits.flatten(0, 1), text_target.flatten())
        audio = F.cross_entropy(audio_logits.flatten(0, 2), audio_target.flatten())
        if streams is not None:
            audio = streams(torch.stack([F.cross_entropy(audio_logits[:, q].flatten(0, 1), audio_target[:, q].flatten())
                                         for q in range(7)]))
        return text * words + audio

    assert checks.two_mouths_loss(loss)
    says(capsys, checks.two_mouths_loss, lambda *a: loss(*a, streams=torch.sum), "counts seven times")
    says(capsys, checks.two_mouths_loss, lambda *a: loss(*a, streams=torch.mean), "mean over all of them")
    says(capsys, checks.two_mouths_loss, lambda *a: loss(*a, words=False), "text loss is missing")
    says(capsys, checks.two_mouths_loss, lambda *a: torch.tensor(1.0), "yours is 1.0")


def test_draw_code(capsys):
    def draw(logits, temperature, top_k, generator, multiply=False, limit=True):
        if temperature == 0:
            return int(logits.argmax())
        logits = logits * temperature if multiply else logits / temperature
        if top_k and limit:
            logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
        return int(torch.multinomial(logits.softmax(0), 1, generator=generator))

    assert checks.draw_code(draw)
    says(capsys, checks.draw_code, lambda *a: draw(*a, multiply=True), "divide the logits")
    says(capsys, checks.draw_code, lambda *a: draw(*a, limit=False), "not among the 3 most likely")
    says(capsys, checks.draw_code, lambda logits, *_: int(logits.argmax()), "same id comes every time")


def test_paired_bootstrap(capsys):
    def bootstrap(a, b, draws, generator, paired=True):
        clips = torch.randint(0, len(a), (draws, len(a)), generator=generator)
        others = clips if paired else torch.randint(0, len(a), (draws, len(a)), generator=generator)
        return float((a[clips].mean(1) < b[others].mean(1)).float().mean())

    assert checks.paired_bootstrap(bootstrap)
    says(capsys, checks.paired_bootstrap, lambda *a: bootstrap(*a, paired=False), "its own clips")
    says(capsys, checks.paired_bootstrap, lambda a, b, *how: bootstrap(b, a, *how), "sign is wrong")
    says(capsys, checks.paired_bootstrap, lambda *a: math.inf, "between 0 and 1")
