# %% [markdown]
# # Solutions of 01 · Hearing
#
# Each exercise in a line, one solution of many, and the same check. The lesson is [here](../01_hearing.ipynb).

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
# ## Exercise 1.1: cut the windows
#
# Every window of `size` samples that fits, each `hop` samples after the one before.

# %%
def my_windows(wav, size, hop):
    return torch.stack([wav[i : i + size] for i in range(0, len(wav) - size + 1, hop)])


assert checks.cut_windows(my_windows)

# %% [markdown]
# ## Exercise 1.2: count the positions
#
# How many positions of the language model does a question of `num_samples` take?

# %%
def my_positions(num_samples):
    columns = min(num_samples + 3200, 480_000) // 160
    features = math.ceil(columns / 2)
    return math.ceil(features / 4)


assert checks.positions_of(my_positions)

# %% [markdown]
# ## Exercise 1.3: mix at a chosen ratio
#
# Speech and noise at a signal-to-noise ratio of `snr_db`.

# %%
def my_mix(speech, noise, snr_db):
    as_loud = noise * (speech.pow(2).mean() / noise.pow(2).mean()).sqrt()
    return speech + as_loud * 10 ** (-snr_db / 20)


assert checks.mix_at_snr(my_mix)

# %% [markdown]
# ## Exercise 1.4: centred cosine
#
# The cosine of `a - mean` and `b - mean` at every moment.

# %%
def my_cosine(a, b, mean):
    a, b = a - mean, b - mean
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


assert checks.centred_cosine(my_cosine)
