# %% [markdown]
# # Solutions of 02 · Speaking
#
# Each exercise in a line, one solution of many, and the same check. The lesson is [here](../02_speaking.ipynb).

# %%
import sys

if "google.colab" in sys.modules:                     # on Colab: fetch the project first
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "./omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import math

import torch

from omni_lite import checks

# %% [markdown]
# ## Exercise 2.1: bits per second
#
# The bit rate of any codec.

# %%
def my_bitrate(codebook, tokens, samples, rate):
    return tokens * math.log2(codebook) * rate / samples


assert checks.bits_per_second(my_bitrate)

# %% [markdown]
# ## Exercise 2.2: weave the frames
#
# Three levels in, frames of seven tokens out, without a loop over time.

# %%
def my_frames(levels):
    coarse, middle, fine = levels
    first_half = [middle[:, 0::2], fine[:, 0::4], fine[:, 1::4]]
    second_half = [middle[:, 1::2], fine[:, 2::4], fine[:, 3::4]]
    return torch.stack([coarse, *first_half, *second_half], dim=1)


assert checks.weave_frames(my_frames)

# %% [markdown]
# ## Exercise 2.3: the nearest entry
#
# For each vector the entry in the most similar direction.

# %%
def my_nearest(vectors, codebook):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    codebook = codebook / codebook.norm(dim=1, keepdim=True)
    return (vectors @ codebook.T).argmax(dim=1)


assert checks.nearest_entry(my_nearest)

# %% [markdown]
# ## Exercise 2.4: entropy
#
# The bits that a token carries on average, from how often each entry came.

# %%
def my_entropy(counts):
    p = counts[counts > 0] / counts.sum()
    return -(p * p.log2()).sum()


assert checks.entropy_bits(my_entropy)
