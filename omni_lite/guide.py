"""Three hints for training, so that small models find in minutes which sound belongs to which word.

**Guided attention**, for the voice: heads of the TTS adapter are taught to look at the word that is being
spoken. The text row says its tokens at once, one a step; speech needs some three steps for each. So the voice has
to find, at every step, the token whose turn it is, among positions that drift ever further back. Nothing
in the loss of the codes says so, and a small model trained on them alone learns to sound like the voice
long before it says the words. Here two heads get a hint: speech goes through its text in order, and
about as fast as the letters go by. Source of the idea: Tachibana et al. 2017, arXiv 1710.08969, section 4.1.
The hint is sharper where the ears have listened to the answer: they know when each word was said (`spoken_when`).

**Guided copying**, for the language model: who transcribes reads a question back, word by word, whatever it says. A
transformer does it with two kinds of heads, one that looks at the token before, and one that uses this to find the
token that followed the last time (Olsson et al. 2022, "In-context learning and induction heads"). Large models find
them by themselves. A small one on some thousand short texts learns the texts by heart instead: ours
read back nearly all sentences of its list, and few that it had never met. So two heads of
one block are shown which token comes next, and two of an earlier block the token before. This follows
the same idea of guided attention.

**CTC**, for the ears: what the ASR adapter puts at a position should resemble the embedding of the word that
is spoken there, or that of `pad_t` where none is. Where each word lies need not be known: connectionist
temporal classification sums over all ways to place them in order. Without it the adapter learns only from
what the whole language model makes of its output, and a model of this size guesses likely sentences for a long
time before it listens. Sources: Graves et al. 2006; as a help beside attention: Watanabe et al. 2017,
"Hybrid CTC/Attention".

All are losses of training only; the model itself stays the paper's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, apply_rotary_pos_emb

from omni_lite.model import OmniModel
from omni_lite.streams import Batch
from omni_lite.vocab import Vocab

PULL = 0.3                                   # what the distance to the nearest embedding adds to the CTC loss
NOWHERE = -1e4                               # log of nothing; not -inf, whose gradient would be no number
TOLERANCE = 0.08                             # of the answer's length: pauses, and letters that take their time
FRAMES_OFF = 1.0                             # what the ears may be wrong by when they say when a word was said
GUIDED_HEAD = 0                              # the first of those that are guided


def byte_lengths(tokenizer: Tokenizer, vocab: Vocab) -> Tensor:
    """Bytes of every token of a byte-level BPE, the measure of how long it takes to say: (text_base,) float32."""
    names = [tokenizer.id_to_token(i) or "" for i in range(vocab.text_base)]
    return torch.tensor([float(len(name)) for name in names])


def expected_attention(batch: Batch, vocab: Vocab, sizes: Tensor,
                       turns: Sequence[Tensor | None] = ()) -> tuple[Tensor, Tensor]:
    """Where the guided head should look at each step.

    sizes:   (text_base,) how long each token takes, see `byte_lengths`
    turns:   for each sequence the end of each token's turn, in frames, see `turns_of`; None where it is not known
    returns: frames (B, S) bool, the steps that say a code of stream 0; and W (B, S, S), for each of them and
             each step that says a text token: 1 where that token is expected to be spoken at that time, less
             the further off it is (a Gaussian of `TOLERANCE`), 0 at steps that say no token
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


def ctc_labels(said: Sequence[Sequence[int]], blank: int) -> tuple[Tensor, Tensor]:
    """What CTC's paths walk along: blank, token, blank, token, ... blank, filled up with blanks.

    returns: labels (B, 2 * tokens + 1), and which may be reached from the one before the last: a token that
             differs from the token before it, so that no blank is needed between
    """
    labels = torch.full((len(said), 2 * max(map(len, said), default=0) + 1), blank)
    for row, tokens in enumerate(said):
        labels[row, 1 : 2 * len(tokens) : 2] = torch.tensor(tokens, dtype=torch.int64)
    skips = torch.zeros_like(labels, dtype=torch.bool)
    skips[:, 3::2] = labels[:, 3::2] != labels[:, 1:-2:2]
    return labels, skips


def spoken_when(log_probs: Tensor, positions: Tensor, said: Sequence[Sequence[int]]) -> list[Tensor | None]:
    """When each token was said, by the likeliest way in which CTC places them: forced alignment.

    log_probs: (B, n, text_base + 1) of `OmniModel.likeness`; positions: (B,) how many of the n are the sentence's
    said:      the tokens of each sentence
    returns:   for each (tokens,) float32, the middle of each token's positions; None where they do not all find
               room, or where nothing is said

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
        way = torch.tensor(path[::-1])                                     # (n,) the label of each position
        sums = torch.zeros(width).index_add_(0, way, torch.arange(n).float())
        out.append((sums / torch.bincount(way, minlength=width))[1 : last + 1 : 2])
    return out


def turns_of(middles: Tensor, frames: float) -> Tensor:
    """The end of each token's turn: halfway to the next one's middle, and for the last the end of the speech.

    middles: (tokens,) in frames; returns: (tokens,) float32, in frames
    """
    return torch.cat([(middles[1:] + middles[:-1]) / 2, middles.new_tensor([frames])]).clamp(max=frames)


def expected_copying(batch: Batch, vocab: Vocab,
                     heard_at: Sequence[Tensor | None] = ()) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Where heads should look while a question is read back, after `asr`.

    heard_at: for each sequence the positions of the tokens in what is heard, see `spoken_when`; None where the
              question is written or where it is not known
    returns:  (steps, W) of the heads that find the token to say next, and of those that find the token before each
              of the question: steps (B, S) bool, W (B, S, S) as in `expected_attention`. Both are empty for
              sequences that read nothing back
    """
    reads_back = (batch.text_in == vocab.asr).cumsum(1) > 0                # from `asr` on
    read = batch.text_in < vocab.text_base
    for row, places in enumerate(heard_at):
        if places is not None:
            read[row, places.long() + 1] = True                            # step 0 is input_t
    read &= ~reads_back & reads_back.any(1, keepdim=True)
    said = (batch.text_target >= 0) & (batch.text_target < vocab.text_base) & reads_back
    number = read.cumsum(1)                                                # of the question's tokens so far, (B, S)
    source = read[:, None, :] & (number[:, None, :] == said.cumsum(1)[:, :, None])
    before = read[:, None, :] & (number[:, None, :] == number[:, :, None] - 1)
    return (said & source.any(-1), source.float()), (read & before.any(-1), before.float())


def head_attention(block: Qwen2DecoderLayer, x: Tensor, rotary: nn.Module, head: int = GUIDED_HEAD) -> Tensor:
    """Log attention of one head of a block to all steps so far: (B, S, D) into the block -> (B, S, S).

    The block's own fused attention does not give its weights, so this head is computed once more.
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
    """-log of the attention that falls where it is expected, mean over the frames; 0 is perfect."""
    near = log_attention[frames] + weights[frames].clamp(min=1e-6).log()   # (n, S)
    return -near.logsumexp(-1).mean()


def heads_loss(block: Qwen2DecoderLayer, x: Tensor, rotary: nn.Module, steps: Tensor, weights: Tensor) -> Tensor:
    """`guide_loss` of the first query head of every group that shares keys and values; 0 where no step is guided.

    One of each group, because what a head can carry is the width of its group's values: with one head for
    all, the right token was found as fast, but it hardly came through.
    """
    if not steps.any():
        return torch.zeros((), device=x.device)
    heads = range(0, block.self_attn.config.num_attention_heads, block.self_attn.num_key_value_groups)
    losses = [guide_loss(head_attention(block, x, rotary, head), steps, weights) for head in heads]
    return torch.stack(losses).mean()


def hearing_loss(model: OmniModel, heard: Tensor, positions: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
    """CTC of the adapter's output, and a pull towards the nearest embedding: it shall not only point at a word.

    heard: (B, n, D) of the ASR adapter; the others as in `ctc_loss`
    """
    log_probs, distance = model.likeness(heard)
    inside = torch.arange(heard.shape[1], device=heard.device) < positions[:, None]
    return ctc_loss(log_probs, positions, said) + PULL * distance[inside].mean()


def teaching_loss(model: OmniModel, heard: Tensor, positions: Tensor, shown: Tensor) -> Tensor:
    """How far what the ears take for likely is from what their teachers do: the divergence of a position's words, mean.

    heard, shown: (B, n, D) of the ASR adapter and, from the same clips, of its teachers;  positions: as in `ctc_loss`
    """
    inside = torch.arange(heard.shape[1], device=heard.device) < positions[:, None]
    likely, target = (model.likeness(one[inside][None])[0][0] for one in (heard, shown))
    return F.kl_div(likely, target.detach(), reduction="batchmean", log_target=True)


def ctc_loss(log_probs: Tensor, positions: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
    """-log of the probability that the positions, read in order, say what was said; mean over its tokens.

    `F.ctc_loss` gives the same, but reads and differentiates all columns; here only those of the labels are touched,
    which with 2,049 columns is several times quicker.

    log_probs: (B, n, text_base + 1) of `OmniModel.likeness`; positions: (B,) how many of the n are the question's
    said:      the tokens of each question; empty where nothing is heard
    """
    rows = [row for row, tokens in enumerate(said) if tokens]
    labels, skips = ctc_labels([said[row] for row in rows], blank=log_probs.shape[-1] - 1)
    lengths = torch.tensor([len(said[row]) for row in rows], device=log_probs.device)
    labels, skips = labels.to(log_probs.device), skips.to(log_probs.device)
    width = labels.shape[1]
    scores = log_probs[rows].gather(2, labels[:, None].expand(-1, log_probs.shape[1], -1)).transpose(0, 1)
    nowhere = scores.new_full((len(rows), 2), NOWHERE)
    paths = torch.cat([scores[0, :, :2], scores.new_full((len(rows), width - 2), NOWHERE)], 1)
    so_far = [paths]                                                       # log probability of all paths to each label
    for score in scores[1:]:
        one = torch.cat([nowhere[:, :1], paths[:, :-1]], 1)
        two = torch.cat([nowhere, paths], 1)[:, :width].masked_fill(~skips, NOWHERE)
        paths = torch.stack([paths, one, two]).logsumexp(0) + score
        so_far.append(paths)
    ends = torch.stack(so_far)[positions[rows] - 1, torch.arange(len(rows), device=labels.device)]  # (b, width)
    total = ends.gather(1, torch.stack([2 * lengths, 2 * lengths - 1], 1)).logsumexp(1)
    return (torch.where(total > NOWHERE / 2, -total, 0.0) / lengths).mean()  # 0 where the tokens find no room
