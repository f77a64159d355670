"""The language model learns to read what the ears hear: written questions, rendered as if they had been heard.

    clips --ASR adapter--> what each position sounds like --cut where a token ends--> snippets
    a written question --snippets of its tokens--> positions --language model--> what it thinks of the question typed

Nearly every typed question is answered rightly, and not every spoken one: between them lie words that the ears take
for others, half or wholly. A fact has a few spoken questions in training, and one that is known from text alone has
none. But what the ears make of a word they have shown in other sentences. So any question can be read as it might have
been heard, as often as it is drawn and each time otherwise. Source of the idea: text becomes what the acoustic model
would have given, so that what is known from text alone can be trained by voice, Hayashi et al. 2018, arXiv 1807.10893.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from omni_lite.data import Emission
from omni_lite.guide import spoken_when
from omni_lite.model import OmniModel, sharpened
from omni_lite.vocab import NUM_ROWS, NUM_STREAMS

LIKELIEST = 8                                # words that are kept of a position: they hold nearly all of it
TRIES = 4                                    # places where a token was said, of which the longest run is taken
BREAK = 0.2                                  # how probably a run ends after each token although it could go on
MARGIN = 2                                   # positions kept before a clip's first token and after its last
SILENCE = (1, 4)                             # positions of silence around a question, at least and at most


@torch.no_grad()
def emissions(model: OmniModel, features: Tensor, lengths: Tensor,
              said: Sequence[tuple[int, ...]]) -> list[tuple[Emission, Tensor] | None]:
    """What the ears make of some clips, and where each token is heard; None where not all of them find room.

    features: (B, T, D_ear), lengths: (B,), as in `OmniModel.embed`; said: the tokens of each
    returns:  the emission, without the silence around it, and cuts (tokens + 1,): token k is heard at positions
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
    """What the ears made of every token wherever it was said, to be put together anew.

    nothing: the id that stands for no token, see `OmniModel.likeness`
    """

    def __init__(self, nothing: int) -> None:
        self.nothing = nothing
        self.clips: list[tuple[Emission, list[int], tuple[int, ...]]] = []
        self.where: dict[int, list[tuple[int, int]]] = defaultdict(list)   # token -> (clip, its number in the clip)

    def add(self, heard: Emission, cuts: Tensor, said: tuple[int, ...]) -> None:
        """One more clip, with its cuts as `emissions` has them."""
        for number, token in enumerate(said):
            self.where[token].append((len(self.clips), number))
        self.clips.append((heard, cuts.tolist(), said))

    def place(self, question: Sequence[int]) -> Emission:
        """A question as it might have been heard; a token that no clip says is heard as itself. `random` decides.

        Runs of tokens that some clip says one after the other stay together, since ears hear each word beside others.
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
        """How many of the wanted tokens the clip says from there on, at least one, or fewer by chance."""
        said, length = self.clips[clip][2], 1
        while (length < len(wanted) and first + length < len(said) and said[first + length] == wanted[length]
               and random.random() > BREAK):
            length += 1
        return clip, first, length

    def _clean(self, word: int) -> Emission:
        """One position that sounds like one word and nothing else."""
        return Emission(torch.tensor([[word]]), torch.ones(1, 1))

    def _silence(self) -> Emission:
        return Emission.joined([self._clean(self.nothing)] * random.randint(*SILENCE))


def collect(model: OmniModel, clips: Iterable[tuple[Tensor, Tensor, Sequence[tuple[int, ...]]]]) -> Snippets:
    """Snippets of many clips, given as batches of what `emissions` wants."""
    found = Snippets(model.config.vocab.text_base)
    for features, lengths, said in clips:
        for tokens, one in zip(said, emissions(model, features, lengths, said), strict=True):
            if one is not None:
                found.add(*one, tokens)
    return found


def render(model: OmniModel, x: Tensor, heard: Sequence[Emission | None]) -> Tensor:
    """Put emissions in the place of what `OmniModel.embed` made of steps 1..n: (B, S, D) -> (B, S, D)."""
    rows = [row for row, one in enumerate(heard) if one is not None]
    if not rows:
        return x
    some = [one for one in heard if one is not None]
    together = Emission.joined(some)
    words = model.mixed(together.words.to(x.device), together.shares.to(x.device))
    silent = model.text_embed.weight[model.config.vocab.pad_t]
    where = torch.repeat_interleave(torch.tensor(rows), torch.tensor(list(map(len, some))))
    steps = torch.cat([torch.arange(1, 1 + len(one)) for one in some])
    x = x.clone()
    x[where.to(x.device), steps.to(x.device)] = ((silent + NUM_STREAMS * words) / NUM_ROWS).to(x.dtype)
    return x
