# %% [markdown]
# # Solutions to 08 · Streaming
#
# Try first: [the notebook](../08_streaming.ipynb) has hints. Takes seconds.

# %%
import torch

from omni_lite import checks

# %% [markdown]
# ## 1 · The patient player
#
# How long to wait after the first chunk so that no gap is heard? A chunk's turn comes when all before it have been
# played; the one that would be latest decides.

# %%
def my_start_delay(ready_s, lengths_s):
    """Seconds after the first chunk is there."""
    delay, played = 0.0, 0.0
    for ready, length in zip(ready_s, lengths_s, strict=True):
        delay = max(delay, (ready - ready_s[0]) - played)
        played += length
    return delay


assert checks.start_delay(my_start_delay)

# %% [markdown]
# For a model that is steadily too slow the delay grows with the length of the answer: in the end the player has to
# wait for nearly all of it. A live player does not know the future; it can only guess from the pace so far (`Talker`
# in `omni_lite/widgets.py` does that).

# %% [markdown]
# ## 2 · What goes into the next step
#
# The inputs of both rows: the same text; row 0 hears what it said, row 1 hears silence.

# %%
def my_two_rows(text_id, audio_ids, pad_a):
    """Text (2, 1) and audio (2, 7, 1)."""
    text = torch.full((2, 1), text_id)
    audio = torch.tensor([list(audio_ids), [pad_a] * len(audio_ids)])
    return text, audio[..., None]


assert checks.two_rows(my_two_rows)

# %% [markdown]
# ## 3 · The cross-fade
#
# Join pieces that share `overlap` samples, fading from the old one to the new one.

# %%
def my_crossfade(pieces, overlap):
    """(N_i,) pieces -> (N,)."""
    rise = torch.linspace(0, 1, overlap)
    sound = pieces[0]
    for piece in pieces[1:]:
        shared = (1 - rise) * sound[-overlap:] + rise * piece[:overlap]
        sound = torch.cat([sound[:-overlap], shared, piece[overlap:]])
    return sound


assert checks.crossfade(my_crossfade)

# %% [markdown]
# ## 4 · The nucleus
#
# Keep the most likely ids that together reach `top_p`, scaled to 1.

# %%
def my_nucleus(p, top_p):
    """(V,) -> (V,)."""
    order = p.argsort(descending=True)
    before = p[order].cumsum(0) - p[order]                        # what the likelier ones hold already
    kept = torch.zeros_like(p)
    kept[order[before < top_p]] = p[order[before < top_p]]
    return kept / kept.sum()


assert checks.nucleus(my_nucleus)
