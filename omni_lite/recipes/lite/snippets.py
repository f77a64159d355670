"""Snippets: simulate the ASR adapter's output for a written question from its output for other clips.

The model answers nearly every typed question, but fewer spoken ones, because the ASR adapter confuses words. A fact has
few spoken questions in the training set, or none, but its words occur in other clips. Snippets of these clips, one for
each token, simulate any question with realistic errors, in a new way at each draw. `reading.py` trains with them.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from omni_lite.model import OmniModel, sharpened
from omni_lite.recipes.ctc import spoken_when

LIKELIEST = 8                                # words to keep of a position, with nearly all of its probability
TRIES = 4                                    # random occurrences of a token; the longest run wins
BREAK = 0.2                                  # probability of ending a run early after each token
MARGIN = 2                                   # positions to keep before a clip's first token and after its last
SILENCE = (1, 4)                             # positions of silence around a question, at least and at most


@dataclass(frozen=True)
class Emission:
    """The most likely words of n positions of the ASR adapter, and their shares for `OmniModel.mixed`.

    words: (n, K) int64, token ids or the id of no token, see `OmniModel.likeness`
    shares: (n, K) float32, the K of a position sum to 1
    """

    words: Tensor
    shares: Tensor

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, positions: slice) -> "Emission":
        return Emission(self.words[positions], self.shares[positions])

    @staticmethod
    def joined(parts: Sequence["Emission"]) -> "Emission":
        """The parts one after the other, padded with zeros to the largest K."""
        widest = max(part.words.shape[1] for part in parts)
        words, shares = (torch.cat([F.pad(one, (0, widest - one.shape[1])) for one in tensors])
                         for tensors in ([part.words for part in parts], [part.shares for part in parts]))
        return Emission(words, shares)


@torch.no_grad()
def emissions(model: OmniModel, features: Tensor, lengths: Tensor,
              said: Sequence[tuple[int, ...]]) -> list[tuple[Emission, Tensor] | None]:
    """The ASR adapter's output for some clips, and the positions of each token; None if the tokens do not fit.

    features: (B, T, D_ear), lengths: (B,), as in `OmniModel.embed`; said: the tokens of each
    returns:  the emission without the silence around it, and cuts (tokens + 1,): token k has the positions
              cuts[k] .. cuts[k + 1]
    """
    positions = -(-lengths // model.config.ear.stack)
    log_probs, _ = model.likeness(model.asr_adapter(features, positions))
    places = spoken_when(log_probs.cpu(), positions.cpu(), said)
    shares, words = sharpened(log_probs).topk(min(LIKELIEST, log_probs.shape[-1]))
    shares, words = (shares / shares.sum(-1, keepdim=True)).cpu(), words.cpu()
    out: list[tuple[Emission, Tensor] | None] = []
    for row, middles in enumerate(places):
        if middles is None:
            out.append(None)
            continue
        first = max(0, int(middles[0]) - MARGIN)
        end = min(int(positions[row]), int(middles[-1]) + 1 + MARGIN)
        inner = ((middles[1:] + middles[:-1]) / 2).ceil().long()
        cuts = torch.cat([torch.tensor([first]), inner, torch.tensor([end])]) - first
        out.append((Emission(words[row, first:end], shares[row, first:end]), cuts))
    return out


class Snippets:
    """The emissions of many clips, indexed by token; `place` combines them into new questions.

    nothing: the id of no token, see `OmniModel.likeness`
    """

    def __init__(self, nothing: int) -> None:
        self.nothing = nothing
        self.clips: list[tuple[Emission, list[int], tuple[int, ...]]] = []
        self.where: dict[int, list[tuple[int, int]]] = defaultdict(list)   # token -> (clip, its number in the clip)

    def add(self, heard: Emission, cuts: Tensor, said: tuple[int, ...]) -> None:
        """Add a clip, with its cuts from `emissions`."""
        for number, token in enumerate(said):
            self.where[token].append((len(self.clips), number))
        self.clips.append((heard, cuts.tolist(), said))

    def place(self, question: Sequence[int]) -> Emission:
        """A random simulated emission of a question; a token that no clip contains becomes one clean position.

        Runs of tokens that one clip contains in this order stay together: neighbours change how a word is heard.
        """
        parts, at = [self._silence()], 0
        while at < len(question):
            places = self.where.get(question[at], [])
            if not places:
                parts += [self._clean(question[at]), self._silence()]
                at += 1
                continue
            runs = [self._run(question[at:], clip, first) for clip, first in random.choices(places, k=TRIES)]
            clip, first, length = max(runs, key=lambda run: run[2])
            heard, cuts, _ = self.clips[clip]
            parts.append(heard[cuts[first] : cuts[first + length]])
            at += length
        return Emission.joined([*parts, self._silence()])

    def _run(self, wanted: Sequence[int], clip: int, first: int) -> tuple[int, int, int]:
        """How many of the wanted tokens the clip contains from `first` on, at least one; random breaks shorten it."""
        said, length = self.clips[clip][2], 1
        while (length < len(wanted) and first + length < len(said) and said[first + length] == wanted[length]
               and random.random() > BREAK):
            length += 1
        return clip, first, length

    def _clean(self, word: int) -> Emission:
        """One position with one certain word."""
        return Emission(torch.tensor([[word]]), torch.ones(1, 1))

    def _silence(self) -> Emission:
        return Emission.joined([self._clean(self.nothing)] * random.randint(*SILENCE))


def collect(model: OmniModel, clips: Iterable[tuple[Tensor, Tensor, Sequence[tuple[int, ...]]]]) -> Snippets:
    """Snippets of many clips, in batches of the arguments of `emissions`."""
    found = Snippets(model.config.vocab.text_base)
    for features, lengths, said in clips:
        for tokens, one in zip(said, emissions(model, features, lengths, said), strict=True):
            if one is not None:
                found.add(*one, tokens)
    return found
