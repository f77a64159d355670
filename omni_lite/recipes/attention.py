"""Guided attention: auxiliary losses that show attention heads of a small model where to look.

**For the voice** (`GuidedAttention`). The text stream emits one token a step, but speech needs about three steps a
token. At every step the voice must find the token that is being spoken, further and further back. The loss of the
codes does not teach this directly: a small model sounds like the voice long before it says the words. The loss shows
two heads that speech goes through its text in order, at the pace of the letters. Source: Tachibana et al. 2017, arXiv
1710.08969, section 4.1. If `ctc.spoken_when` has found the time of each word, the target is sharper.

**For the language model** (`GuidedCopying`). Transcribing copies the question word by word. A transformer copies with
two kinds of heads: one looks at the previous token, and one finds the token that followed it last time (Olsson et al.
2022, "In-context learning and induction heads"). Large models learn these heads by themselves; a small one memorises
its few thousand short texts instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, apply_rotary_pos_emb

from omni_lite.data import Heard
from omni_lite.model import OmniModel
from omni_lite.recipes.ctc import spoken_when
from omni_lite.streams import Batch
from omni_lite.train import Forward
from omni_lite.vocab import Vocab

TOLERANCE = 0.08                             # of the answer's length, for pauses and slow letters
FRAMES_OFF = 1.0                             # error of the ASR adapter's times, in frames
GUIDED_HEAD = 0                              # the first guided head


@dataclass(frozen=True)
class GuidedAttention:
    """Two heads of the TTS adapter learn to look at the token that is being spoken.

    sizes: (text_base,) how long each token takes, see `byte_lengths`; `ready` sets it
    """

    weight: float
    name: str = "guide"
    sizes: Tensor | None = None

    def ready(self, tokenizer: Tokenizer, vocab: Vocab) -> "GuidedAttention":
        """The same loss for one tokenizer's tokens."""
        return replace(self, sizes=byte_lengths(tokenizer, vocab))

    def watches(self, model: OmniModel) -> Sequence[nn.Module]:
        block = guided_block(model)
        return () if block is None else (block,)

    def __call__(self, forward: Forward) -> Tensor | None:
        block = cast(Any, guided_block(forward.model))
        if block is None or block not in forward.inputs:
            return None
        assert self.sizes is not None and forward.model.tts_adapter is not None, "call `ready` first"
        x = forward.inputs[block]
        looks = expected_looks(forward.heard, forward.model.config.vocab, self.sizes)
        return heads_loss(block, x, forward.model.tts_adapter.rotary, *(one.to(x.device) for one in looks))


@dataclass(frozen=True)
class GuidedCopying:
    """Heads of two blocks of the language model learn to find the token to copy, and the token before each."""

    weight: float
    name: str = "copying"

    def watches(self, model: OmniModel) -> Sequence[nn.Module]:
        return copying_blocks(model)

    def __call__(self, forward: Forward) -> Tensor | None:
        model, heard_at = forward.model, list[Tensor | None]()
        if forward.adapted is not None and forward.positions is not None:
            with torch.no_grad():
                log_probs = model.likeness(forward.adapted)[0].cpu()
                heard_at = spoken_when(log_probs, forward.positions.cpu(), forward.heard.said)
        where = expected_copying(forward.heard.batch, model.config.vocab, heard_at)
        losses = []
        for block, (steps, weights) in zip(copying_blocks(model), where, strict=True):
            x = forward.inputs[block]
            losses.append(heads_loss(block, x, cast(Any, model.trunk).rotary_emb, steps.to(x.device),
                                     weights.to(x.device)))
        return torch.stack(losses).sum()


def expected_looks(heard: Heard, vocab: Vocab, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """`expected_attention` for the sequences of a batch that speak."""
    speaking = heard.speaks
    turns = [getattr(item, "turns", None) for item, speaks in zip(heard.items, speaking.tolist(), strict=False)
             if speaks]
    return expected_attention(heard.batch.pick(speaking), vocab, sizes, turns)


def guided_block(model: OmniModel) -> nn.Module | None:
    """The guided block, the second of the TTS adapter; None without an adapter.

    The first block tracks how far the speech has come; the later blocks turn the found word into codes.
    """
    blocks = [] if model.tts_adapter is None else list(model.tts_adapter.blocks)
    return blocks[:2][-1] if blocks else None


def copying_blocks(model: OmniModel) -> list[Any]:
    """The block that finds the token to say next and the earlier block that finds the token before each.

    They are the fourth and the second of six blocks of the language model.
    """
    layers = cast(Any, model.trunk).layers
    return [layers[len(layers) // 2], layers[len(layers) // 4]]




def byte_lengths(tokenizer: Tokenizer, vocab: Vocab) -> Tensor:
    """Bytes of every token of a byte-level BPE, a measure of its spoken length: (text_base,) float32."""
    names = [tokenizer.id_to_token(i) or "" for i in range(vocab.text_base)]
    return torch.tensor([float(len(name)) for name in names])


def expected_attention(batch: Batch, vocab: Vocab, sizes: Tensor,
                       turns: Sequence[Tensor | None] = ()) -> tuple[Tensor, Tensor]:
    """Where the guided head should look at each step.

    sizes:   (text_base,) how long each token takes, see `byte_lengths`
    turns:   for each sequence the end of each token's turn in frames, see `ctc.turns_of`; None if unknown
    returns: frames (B, S) bool, the steps with a code of stream 0;
             W (B, S, S), the expected attention from these steps to the steps with a text token: 1 within the
             token's turn, then a Gaussian of width `TOLERANCE`; 0 at steps without a text token
    """
    text, codes = batch.text_target, batch.audio_target[:, 0]              # (B, S)
    says = (text >= 0) & (text < vocab.text_base)
    frames = (codes >= 0) & (codes < vocab.codebook) & says.any(1, keepdim=True)
    length = frames.sum(1, keepdim=True).float()                           # (B, 1)
    size = sizes[text.clamp(0, vocab.text_base - 1)] * says
    end = size.cumsum(1) / size.sum(1, keepdim=True).clamp(min=1) * length
    spread = TOLERANCE * length
    for row, known in enumerate(turns):
        if known is not None:
            end[row, says[row]] = known.to(end)
            spread[row] = FRAMES_OFF
    order = says.cumsum(1)                                                 # 1, 2, ... at the steps that say a token
    before = torch.cat([end.new_zeros(len(end), 1), end.masked_fill(~says, 0).cummax(1).values[:, :-1]], 1)
    start = torch.where(order == 1, 0.0, before)                           # where the token's predecessor ends
    now = frames.cumsum(1) - 0.5
    early = (start[:, None, :] - now[:, :, None]).clamp(min=0)             # the token's turn is still to come
    late = (now[:, :, None] - end[:, None, :]).clamp(min=0)
    weights = torch.exp(-((early + late) ** 2) / (2 * spread.clamp(min=1e-3)[:, :, None] ** 2)) * says[:, None, :]
    return frames, weights


def expected_copying(batch: Batch, vocab: Vocab,
                     heard_at: Sequence[Tensor | None] = ()) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Where the heads should look while the model copies a question, after the special token `asr`.

    heard_at: for each sequence the positions of its spoken tokens, see `spoken_when`; None if the question is
              written or the positions are unknown
    returns:  (steps, W) of the heads that find the token to say next, then of the heads that find the token before
              each token of the question: steps (B, S) bool, W (B, S, S) as in `expected_attention`. Both are zero
              for sequences that copy nothing
    """
    reads_back = (batch.text_in == vocab.asr).cumsum(1) > 0                # from `asr` on
    read = batch.text_in < vocab.text_base
    for row, places in enumerate(heard_at):
        if places is not None:
            read[row, places.long() + 1] = True                            # step 0 is input_t
    read &= ~reads_back & reads_back.any(1, keepdim=True)
    said = (batch.text_target >= 0) & (batch.text_target < vocab.text_base) & reads_back
    number = read.cumsum(1)                                                # question tokens so far, (B, S)
    source = read[:, None, :] & (number[:, None, :] == said.cumsum(1)[:, :, None])
    before = read[:, None, :] & (number[:, None, :] == number[:, :, None] - 1)
    return (said & source.any(-1), source.float()), (read & before.any(-1), before.float())


def head_attention(block: Qwen2DecoderLayer, x: Tensor, rotary: nn.Module, head: int = GUIDED_HEAD) -> Tensor:
    """Log attention of one head of a block to all steps so far: (B, S, D) into the block -> (B, S, S).

    This computes the head a second time: the block's fused attention does not return its weights.
    """
    attention = block.self_attn
    d = attention.head_dim
    kv = head // attention.num_key_value_groups
    rows, kv_rows = slice(head * d, (head + 1) * d), slice(kv * d, (kv + 1) * d)
    x = block.input_layernorm(x)
    q, k = (F.linear(x, proj.weight[some], None if proj.bias is None else proj.bias[some])[:, None]
            for proj, some in ((attention.q_proj, rows), (attention.k_proj, kv_rows)))
    positions = torch.arange(x.shape[1], device=x.device)[None]
    q, k = apply_rotary_pos_emb(q, k, *rotary(x, positions))
    scores = (q[:, 0] @ k[:, 0].transpose(1, 2)).float() * d**-0.5
    future = torch.ones(scores.shape[1:], dtype=torch.bool, device=x.device).triu(1)
    return scores.masked_fill(future, -torch.inf).log_softmax(-1)


def guide_loss(log_attention: Tensor, frames: Tensor, weights: Tensor) -> Tensor:
    """-log of the attention at the expected steps, mean over the frames; 0 is perfect."""
    near = log_attention[frames] + weights[frames].clamp(min=1e-6).log()   # (n, S)
    return -near.logsumexp(-1).mean()


def heads_loss(block: Qwen2DecoderLayer, x: Tensor, rotary: nn.Module, steps: Tensor, weights: Tensor) -> Tensor:
    """Mean `guide_loss` of the first query head of every key-value group; 0 if no step is guided.

    Every group needs a guided head: a head can only pass on its own group's values.
    """
    if not steps.any():
        return torch.zeros((), device=x.device)
    heads = range(0, block.self_attn.config.num_attention_heads, block.self_attn.num_key_value_groups)
    losses = [guide_loss(head_attention(block, x, rotary, head), steps, weights) for head in heads]
    return torch.stack(losses).mean()
