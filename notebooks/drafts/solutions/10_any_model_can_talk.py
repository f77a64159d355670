# %% [markdown]
# # Solutions to 10 · Any model can talk
#
# Try first: [the notebook](../10_any_model_can_talk.ipynb) has hints. Takes seconds.

# %%
import torch

from omni_lite import checks
from omni_lite.vocab import FRAME_SECONDS

# %% [markdown]
# ## 1 · Room for new ids
#
# The table with `extra` rows more, each the mean of the old ones.

# %%
def my_new_rows(table, extra):
    """(V, D) -> (V + extra, D)."""
    return torch.cat([table, table.mean(dim=0, keepdim=True).expand(extra, -1)])


assert checks.new_rows(my_new_rows)

# %% [markdown]
# ## 2 · Unpack it
#
# Baichuan's `W_pack` holds queries, keys and values one below the other.

# %%
def my_split_pack(W_pack):
    """(3 * D, D) -> three of (D, D)."""
    return W_pack.chunk(3)


assert checks.split_pack(my_split_pack)

# %% [markdown]
# ## 3 · Solve the puzzle
#
# The release's fused matrix lies group after group: its queries, its key, its value.

# %%
def my_split_groups(fused, heads, groups):
    """((heads + 2 * groups) * H, D) -> queries, keys, values."""
    H = len(fused) // (heads + 2 * groups)
    by_group = fused.unflatten(0, (groups, -1))                   # (groups, rows of one group, D)
    q, k, v = by_group.split([heads // groups * H, H, H], dim=1)
    return q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)


assert checks.split_groups(my_split_groups)

# %% [markdown]
# ## 4 · What can talk here?
#
# The most precise of three storage forms whose floor is no longer than a frame.

# %%
def my_keeps_up(parameters, bandwidth_gb_s):
    """Its name, or None where nothing keeps up."""
    for precision, size in (("fp32", 4), ("bf16", 2), ("int8", 1)):
        if parameters * size / (bandwidth_gb_s * 1e9) <= FRAME_SECONDS:
            return precision
    return None


assert checks.keeps_up(my_keeps_up)
for name, parameters in (("0.5 billion", 0.5e9), ("7 billion", 7e9)):
    print(name, {gb_s: my_keeps_up(parameters, gb_s) for gb_s in (10, 30, 100, 1000)})
