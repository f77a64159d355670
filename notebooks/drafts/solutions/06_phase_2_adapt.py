# %% [markdown]
# # 06 · Phase 2: solutions
#
# For the exercises of [06 · Phase 2: adapt](../06_phase_2_adapt.ipynb). Try them yourself first: the checks say what is
# missing.

# %%
import math

from omni_lite import checks

# %% [markdown]
# ## Exercise 1: what share of all targets does each kind give?

# %%
def my_shares(mixture, targets):
    """mixture: share of the items by kind; targets: mean targets of an item by kind"""
    weighed = {kind: share * targets[kind] for kind, share in mixture.items()}
    total = sum(weighed.values())
    return {kind: weight / total for kind, weight in weighed.items()}


assert checks.learning_shares(my_shares)

# %% [markdown]
# ## Exercise 2: warm up, then half a cosine

# %%
def my_rate(step, steps, peak, end, warmup):
    """Learning rate of a step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return end + (peak - end) * (1 + math.cos(math.pi * done)) / 2


assert checks.learning_rate(my_rate)

# %% [markdown]
# ## Exercise 3: count what was kept, lost and won

# %%
def my_counts(before, after):
    """before, after: one bool a question"""
    pairs = list(zip(before, after, strict=True))
    return pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))


assert checks.kept_lost_won(my_counts)
