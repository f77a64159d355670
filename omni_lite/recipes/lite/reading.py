"""The stage "reading": distil the trunk's output for a typed question into its output for the same question spoken.

    clips --ASR adapter--> word probabilities of each position --cut at token ends--> snippets
    written question --snippets of its tokens--> simulated positions --trunk--> output, as for the typed question

Source of the idea: train with acoustic features that are generated from text, Hayashi et al. 2018, arXiv 1807.10893.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_lite.data import Heard
from omni_lite.model import OmniModel
from omni_lite.recipes.lite.items import Corpus, typed_too
from omni_lite.recipes.lite.snippets import Emission, collect
from omni_lite.recipes.transforms import masked
from omni_lite.streams import IGNORE, Batch
from omni_lite.train import Forward
from omni_lite.vocab import NUM_ROWS, NUM_STREAMS

SNIPPET_CLIPS = 30_000                       # clips to cut into snippets, at most


@dataclass(frozen=True)
class AsTyped:
    """Distillation from the frozen trunk's output for the typed question.

    known: a frozen copy of the trunk before this stage; `ready` makes it
    """

    weight: float
    name: str = "typed"
    known: nn.Module | None = None

    def ready(self, model: OmniModel) -> "AsTyped":
        """The same loss with a frozen copy of the model's trunk."""
        return replace(self, known=copy.deepcopy(model.trunk).requires_grad_(False).eval())

    def watches(self, model: OmniModel) -> Sequence[nn.Module]:
        return ()

    def __call__(self, forward: Forward) -> Tensor | None:
        assert self.known is not None and forward.hidden is not None and forward.logits is not None, "call `ready`"
        typed = typed_too(forward.heard.items, forward.model.config.vocab).to(forward.hidden.device)
        return as_typed(forward.model, self.known, typed, forward.hidden, forward.logits)


def as_typed(model: OmniModel, known: nn.Module, typed: Batch, hidden: Tensor, logits: Tensor) -> Tensor:
    """KL divergence from the predictions for the typed question, plus the relative squared distance of the outputs.

    The second term keeps the outputs that the voice reads.

    known: the trunk before the stage;  typed: see `items.typed_too`
    hidden, logits: (n, D), (n, V_text) at the n targets of the text stream, in the order of `typed`
    returns: () float32.  Source: knowledge distillation, arXiv 1503.02531
    """
    with torch.no_grad():
        x = model.embed(typed.text_in, typed.audio_in)
        wanted = known(inputs_embeds=x, use_cache=False).last_hidden_state[typed.text_target != IGNORE]
        guesses = model.text_logits(wanted).float().log_softmax(-1)
    apart = (hidden - wanted).float().square().mean() / wanted.float().square().mean()
    return F.kl_div(logits.float().log_softmax(-1), guesses, reduction="batchmean", log_target=True) + apart


def with_snippets(corpus: Corpus, model: OmniModel, share_masked: float, seed: int = 0) -> Corpus:
    """The corpus with snippets of its clips, a share of them masked."""
    torch.manual_seed(seed)
    random.seed(f"snippets {seed}")
    return replace(corpus, snippets=collect(model, clips_of(corpus, share_masked, model.bands.device)))


def clips_of(corpus: Corpus, share: float, device: torch.device, group: int = 64
               ) -> Iterator[tuple[Tensor, Tensor, list[tuple[int, ...]]]]:
    """Up to `SNIPPET_CLIPS` random clips for `snippets.collect`, a share of them `masked`.

    yields: features (B, T, D_ear), zeros after each clip's end, lengths (B,), and the tokens of each clip
    """
    assert corpus.store is not None, "snippets need the features of the corpus"
    said = dict(corpus.transcribed)
    chosen = random.sample(sorted(said), min(len(said), SNIPPET_CLIPS))
    chosen.sort(key=corpus.store.length)                                   # for batches of similar length
    for first in range(0, len(chosen), group):
        batch = chosen[first : first + group]
        clips = [corpus.store[clip].float() for clip in batch]
        lengths = torch.tensor([len(clip) for clip in clips])
        features = masked(nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths, share)
        yield features.to(device), lengths.to(device), [said[clip] for clip in batch]


def render(model: OmniModel, x: Tensor, heard: Heard) -> Tensor:
    """Replace the output of `OmniModel.embed` at steps 1..n by the items' emissions: (B, S, D) -> (B, S, D)."""
    found = [getattr(item, "emission", None) for item in heard.items]
    rows = [row for row, one in enumerate(found) if one is not None]
    if not rows:
        return x
    simulated = [one for one in found if one is not None]
    together = Emission.joined(simulated)
    words = model.mixed(together.words.to(x.device), together.shares.to(x.device))
    silent = model.text_embed.weight[model.config.vocab.pad_t]
    where = torch.repeat_interleave(torch.tensor(rows), torch.tensor(list(map(len, simulated))))
    steps = torch.cat([torch.arange(1, 1 + len(one)) for one in simulated])
    x = x.clone()
    x[where.to(x.device), steps.to(x.device)] = ((silent + NUM_STREAMS * words) / NUM_ROWS).to(x.dtype)
    return x
