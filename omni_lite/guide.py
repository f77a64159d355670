"""Guided attention: one head of the TTS adapter is taught to look at the word that is being spoken.

The text row says its tokens at once, one a step; speech needs some three steps for each. So the voice has
to find, at every step, the token whose turn it is, among positions that drift ever further back. Nothing
in the loss of the codes says so, and a small model trained on them alone learns to sound like the voice
long before it says the words. Here one head gets a hint: speech goes through its text in order, and
about as fast as the letters go by. It is a loss of training only; the model itself stays the paper's.

Source of the idea: Tachibana et al. 2017, arXiv 1710.08969, section 4.1.
"""

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, apply_rotary_pos_emb

from omni_lite.streams import Batch
from omni_lite.vocab import Vocab

TOLERANCE = 0.08                             # of the answer's length: pauses, and letters that take their time
GUIDED_HEAD = 0


def byte_lengths(tokenizer: Tokenizer, vocab: Vocab) -> Tensor:
    """Bytes of every token of a byte-level BPE, the measure of how long it takes to say: (text_base,) float32."""
    names = [tokenizer.id_to_token(i) or "" for i in range(vocab.text_base)]
    return torch.tensor([float(len(name)) for name in names])


def expected_attention(batch: Batch, vocab: Vocab, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Where the guided head should look at each step.

    sizes:   (text_base,) how long each token takes, see `byte_lengths`
    returns: frames (B, S) bool, the steps that say a code of stream 0; and W (B, S, S), for each of them and
             each step that says a text token: 1 where that token is expected to be spoken at that time, less
             the further off it is (a Gaussian of `TOLERANCE`), 0 at steps that say no token
    """
    text, codes = batch.text_target, batch.audio_target[:, 0]              # (B, S)
    says = (text >= 0) & (text < vocab.text_base)
    size = sizes[text.clamp(0, vocab.text_base - 1)] * says
    end = size.cumsum(1) / size.sum(1, keepdim=True).clamp(min=1)
    start = end - size / size.sum(1, keepdim=True).clamp(min=1)
    frames = (codes >= 0) & (codes < vocab.codebook) & says.any(1, keepdim=True)
    now = (frames.cumsum(1) - 0.5) / frames.sum(1, keepdim=True).clamp(min=1)
    early = (start[:, None, :] - now[:, :, None]).clamp(min=0)             # the token's turn is still to come
    late = (now[:, :, None] - end[:, None, :]).clamp(min=0)
    weights = torch.exp(-((early + late) ** 2) / (2 * TOLERANCE**2)) * says[:, None, :]
    return frames, weights


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
