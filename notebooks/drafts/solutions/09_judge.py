# %% [markdown]
# # Solutions to 09 · Judge
#
# Try first: [the notebook](../09_judge.ipynb) has hints. Takes seconds.

# %%
import math

import numpy as np
from scipy import stats

from omni_lite import checks

# %% [markdown]
# ## 1 · Which kind of error?
#
# The substitutions, deletions and insertions of a cheapest way: fill the table of all beginnings, then walk back.

# %%
def edit_table(said, wrote):
    """(n + 1, m + 1): the fewest changes from the first i words to the first j."""
    n, m = len(said), len(wrote)
    table = np.zeros((n + 1, m + 1), dtype=int)
    table[:, 0], table[0] = np.arange(n + 1), np.arange(m + 1)
    for i in range(n):
        for j in range(m):
            change = table[i, j] + (said[i] != wrote[j])
            table[i + 1, j + 1] = min(change, table[i, j + 1] + 1, table[i + 1, j] + 1)
    return table


# %%
def my_error_kinds(said, wrote):
    """(substitutions, deletions, insertions)"""
    table, i, j = edit_table(said, wrote), len(said), len(wrote)
    changed = left_out = put_in = 0
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (said[i - 1] != wrote[j - 1]):
            changed += said[i - 1] != wrote[j - 1]
            i, j = i - 1, j - 1
        elif i and table[i, j] == table[i - 1, j] + 1:
            left_out, i = left_out + 1, i - 1
        else:
            put_in, j = put_in + 1, j - 1
    return int(changed), left_out, put_in


assert checks.error_kinds(my_error_kinds)

# %% [markdown]
# ## 2 · How many clips?
#
# The fewest clips with which the Wilson interval around a share `p` is at most `2 * half` wide.

# %%
def my_sample_size(p, half):
    """Count up; the width only falls."""
    z, n = stats.norm.ppf(0.975), 1
    while z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) > half:
        n += 1
    return n


assert checks.sample_size(my_sample_size)
print("±5 points around 80 %:", my_sample_size(0.8, 0.05), "clips; ±1 point:", my_sample_size(0.8, 0.01))

# %% [markdown]
# ## 3 · McNemar's test by hand
#
# Two models, the same clips: how surprising is the split of those about which they disagree, if neither is better?

# %%
def my_mcnemar(right_a, right_b):
    """Two-sided exact p-value."""
    only_a = sum(a and not b for a, b in zip(right_a, right_b, strict=True))
    only_b = sum(b and not a for a, b in zip(right_a, right_b, strict=True))
    n, m = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(m + 1)) / 2**n)


assert checks.mcnemar(my_mcnemar)
for only_a, only_b in ((1, 5), (5, 15), (0, 0)):
    right_a, right_b = [True] * only_a + [False] * only_b, [False] * only_a + [True] * only_b
    wanted = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert abs(my_mcnemar(right_a, right_b) - wanted) < 1e-12
