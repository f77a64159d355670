# %% [markdown]
# # 07 · Phase 3: solutions
#
# For the exercises of [07 · Phase 3: talk while thinking](../07_phase_3_talk_while_thinking.ipynb). Try them yourself
# first: the checks say what is missing.

# %%
import torch

from omni_lite import checks

# %% [markdown]
# ## Exercise 1: the loss of two mouths, from logits

# %%
def my_loss(text_logits, audio_logits, text_target, audio_target):
    """Mean over the text targets plus mean over all audio targets; -100 does not count."""

    def mean_loss(logits, target):
        logp = logits.log_softmax(-1).gather(-1, target.clamp(min=0)[..., None])[..., 0]
        return -logp[target != -100].mean()

    return mean_loss(text_logits, text_target) + mean_loss(audio_logits, audio_target)


assert checks.two_mouths_loss(my_loss)

# %% [markdown]
# ## Exercise 2: the paired bootstrap

# %%
def my_bootstrap(a, b, draws, generator):
    """a, b (n,): losses of two models on the same clips -> share of the draws in which a is lower"""
    clips = torch.randint(0, len(a), (draws, len(a)), generator=generator)
    return float((a[clips].mean(1) < b[clips].mean(1)).float().mean())


assert checks.paired_bootstrap(my_bootstrap)

# %% [markdown]
# ## Exercise 3: draw a code

# %%
def my_draw(logits, temperature, top_k, generator):
    """One id; temperature 0 takes the likeliest, top_k 0 allows all."""
    if temperature == 0:
        return int(logits.argmax())
    if top_k:
        least = logits.sort(descending=True).values[top_k - 1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))


assert checks.draw_code(my_draw)
