"""CTC for the ASR adapter: learn which token each position sounds like, without word timings.

The adapter's output at a position should resemble the embedding of the word spoken there, or that of `pad_t` in
silence. Connectionist temporal classification sums over all alignments of the words. Next-token loss alone teaches the
adapter much more slowly: a small model first learns to guess likely sentences without listening.

Sources: Graves et al. 2006; beside attention: Watanabe et al. 2017, "Hybrid CTC/Attention".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_lite.data import Heard
from omni_lite.model import OmniModel
from omni_lite.precision import mixed_precision
from omni_lite.train import Forward
from omni_lite.vocab import Vocab

PULL = 0.3                                   # weight of the distance to the nearest embedding beside the CTC loss
ABSENT = -1e4                                # log probability of an unused column; its gradient is 0


@dataclass(frozen=True)
class CTC:
    """The CTC loss of spoken questions, and a pull of each position towards the nearest embedding."""

    weight: float
    name: str = "ctc"

    def watches(self, model: OmniModel) -> Sequence[nn.Module]:
        return ()

    def __call__(self, forward: Forward) -> Tensor | None:
        if forward.adapted is None or forward.positions is None:
            return None
        return hearing_loss(forward.model, forward.adapted, forward.positions, forward.heard.said)


@dataclass(frozen=True)
class Distillation:
    """KL divergence of the adapter's word probabilities from its teachers'; needs the transform `TaughtBy`."""

    weight: float = 1.0
    name: str = "taught"

    def watches(self, model: OmniModel) -> Sequence[nn.Module]:
        return ()

    def __call__(self, forward: Forward) -> Tensor | None:
        shown = forward.heard.notes.get("taught")
        if shown is None or forward.adapted is None or forward.positions is None:
            return None
        return teaching_loss(forward.model, forward.adapted, forward.positions, shown)


@dataclass(frozen=True)
class TaughtBy:
    """Store the mean output of several ASR adapters for an unmasked batch.

    Adapters from different trainings mishear different words, so their mean mishears fewer. Distillation puts the mean
    into one adapter. Source: distillation of an ensemble, arXiv 1503.02531
    """

    teachers: tuple[nn.Module, ...]
    stack: int

    @torch.no_grad()
    def __call__(self, heard: Heard, vocab: Vocab) -> Heard:
        if heard.features is None or heard.lengths is None:
            return heard
        device = next(self.teachers[0].parameters()).device
        features, positions = heard.features.to(device), (-(-heard.lengths // self.stack)).to(device)
        with mixed_precision(device.type):
            taught = torch.stack([one(features, positions).float() for one in self.teachers]).mean(0)  # (B, n, D)
        return replace(heard, notes=heard.notes | dict(taught=taught))


def hearing_loss(model: OmniModel, heard: Tensor, positions: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
    """CTC of the ASR adapter's output `heard` (B, n, D), plus the pull towards the nearest embedding."""
    log_probs, distance = model.likeness(heard)
    inside = torch.arange(heard.shape[1], device=heard.device) < positions[:, None]
    return ctc_loss(log_probs, positions, said) + PULL * distance[inside].mean()


def teaching_loss(model: OmniModel, heard: Tensor, positions: Tensor, shown: Tensor) -> Tensor:
    """KL divergence of a position's word probabilities from the teachers', mean over the positions.

    heard, shown: (B, n, D) of the ASR adapter and of its teachers
    """
    inside = torch.arange(heard.shape[1], device=heard.device) < positions[:, None]
    likely, target = (model.likeness(one[inside][None])[0][0] for one in (heard, shown))
    return F.kl_div(likely, target.detach(), reduction="batchmean", log_target=True)


def ctc_loss(log_probs: Tensor, positions: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
    """Negative log-likelihood per token, mean over the questions whose tokens fit into their positions.

    `F.ctc_loss` runs only on the columns of each question's labels: with 2,049 columns this is several times faster.
    It needs probabilities that sum to 1, so these columns are normalised first. Every path passes one column a
    position, so the log of the sums is added back afterwards.

    log_probs: (B, n, V + 1), the last column is the blank;  positions: (B,) how many of the n each question has
    said:      the tokens of each question; empty for written questions
    """
    rows = [row for row, tokens in enumerate(said) if tokens]
    if not rows:
        return log_probs.new_zeros(())
    blank, device = log_probs.shape[-1] - 1, log_probs.device
    columns, targets = label_columns([said[row] for row in rows], blank)
    lengths = torch.tensor([len(said[row]) for row in rows])
    known = (columns >= 0)[:, None].to(device)                             # (b, 1, 1 + labels)
    wanted = columns.clamp(min=0)[:, None].expand(-1, log_probs.shape[1], -1)
    scores = log_probs[rows].float().gather(2, wanted.to(device)).masked_fill(~known, ABSENT)
    sums = scores.logsumexp(-1)                                            # (b, n)
    steps = positions[rows].cpu()
    found = F.ctc_loss((scores - sums[..., None]).transpose(0, 1), targets, steps, lengths, blank=0, reduction="none",
                       zero_infinity=True)
    inside = (torch.arange(scores.shape[1]) < steps[:, None]).to(device)
    fits = (steps >= least_positions([said[row] for row in rows])).to(device)
    total = (found - (sums * inside).sum(1)) / lengths.to(device)
    return (total * fits).sum() / len(rows)


def label_columns(said: Sequence[Sequence[int]], blank: int) -> tuple[Tensor, Tensor]:
    """The columns of each question's labels, and the labels as indices into these columns.

    returns: columns (B, 1 + most distinct tokens), the blank first, padded with -1;
             targets (B, most tokens), padded with 0
    """
    distinct = [list(dict.fromkeys(tokens)) for tokens in said]
    columns = torch.full((len(said), 1 + max(map(len, distinct), default=0)), -1)
    targets = torch.zeros(len(said), max(map(len, said), default=0), dtype=torch.int64)
    columns[:, 0] = blank
    for row, (tokens, labels) in enumerate(zip(said, distinct, strict=True)):
        columns[row, 1 : 1 + len(labels)] = torch.tensor(labels)
        targets[row, : len(tokens)] = torch.tensor([1 + labels.index(token) for token in tokens])
    return columns, targets


def least_positions(said: Sequence[Sequence[int]]) -> Tensor:
    """How many positions the tokens need: one each, and a blank between two equal ones. (B,)"""
    return torch.tensor([len(tokens) + sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))
                         for tokens in said])


def ctc_labels(said: Sequence[Sequence[int]], blank: int) -> tuple[Tensor, Tensor]:
    """The label sequence of CTC's paths: blank, token, blank, token, ... blank, padded with blanks.

    returns: labels (B, 2 * tokens + 1); skips, the labels that a path may reach without the blank before: tokens that
             differ from the previous token
    """
    labels = torch.full((len(said), 2 * max(map(len, said), default=0) + 1), blank)
    for row, tokens in enumerate(said):
        labels[row, 1 : 2 * len(tokens) : 2] = torch.tensor(tokens, dtype=torch.int64)
    skips = torch.zeros_like(labels, dtype=torch.bool)
    skips[:, 3::2] = labels[:, 3::2] != labels[:, 1:-2:2]
    return labels, skips


def spoken_when(log_probs: Tensor, positions: Tensor, said: Sequence[Sequence[int]]) -> list[Tensor | None]:
    """Forced alignment: the time of each token on CTC's most likely path.

    log_probs: (B, n, text_base + 1) of `OmniModel.likeness`; positions: (B,) how many of the n each sentence has
    said:      the tokens of each sentence
    returns:   for each sentence (tokens,) float32, the middle of each token's positions; None if the tokens do not
               fit, or if there are none

    Source: the Viterbi path of Graves et al. 2006, section 4.1, with blanks between the labels.
    """
    labels, skips = ctc_labels(said, blank=log_probs.shape[-1] - 1)
    width = labels.shape[1]
    scores = log_probs.float().gather(2, labels[:, None].expand(-1, log_probs.shape[1], -1)).transpose(0, 1)
    nowhere = scores.new_full((len(said), 2), -torch.inf)
    best = torch.cat([scores[0, :, :2], scores.new_full((len(said), width - 2), -torch.inf)], 1)[:, :width]
    bests, came_from = [best], []
    for score in scores[1:]:
        one = torch.cat([nowhere[:, :1], best[:, :-1]], 1)
        two = torch.cat([nowhere, best], 1)[:, :width].masked_fill(~skips, -torch.inf)
        best, step = torch.stack([best, one, two]).max(0)
        best = best + score
        bests.append(best)
        came_from.append(step)
    out: list[Tensor | None] = []
    for row in range(len(said)):
        n, last = int(positions[row]), 2 * len(said[row])
        ends = bests[n - 1][row, max(0, last - 1) : last + 1]
        at = last - 1 + int(ends.argmax()) if last else 0
        if not last or ends.max() == -torch.inf:
            out.append(None)
            continue
        path = [at]
        for step in reversed(came_from[: n - 1]):
            path.append(path[-1] - int(step[row, path[-1]]))
        aligned = torch.tensor(path[::-1])                                 # (n,) the label of each position
        sums = torch.zeros(width).index_add_(0, aligned, torch.arange(n).float())
        out.append((sums / torch.bincount(aligned, minlength=width))[1 : last + 1 : 2])
    return out


def turns_of(middles: Tensor, frames: float) -> Tensor:
    """The end of each token's turn: halfway to the next token's middle; for the last, the end of the speech.

    middles: (tokens,) in frames; returns: (tokens,) float32, in frames
    """
    return torch.cat([(middles[1:] + middles[:-1]) / 2, middles.new_tensor([frames])]).clamp(max=frames)
