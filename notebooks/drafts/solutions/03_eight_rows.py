# %% [markdown]
# # Solutions of 03 · Eight rows
#
# Each exercise in a line, one solution of many, and the same check. The lesson is [here](../03_eight_rows.ipynb).

# %%
import sys

if "google.colab" in sys.modules:                     # on Colab: fetch the project first
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "./omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import torch

from omni_lite import checks

# %% [markdown]
# ## Exercise 3.1: count the steps
#
# Steps until the last of `frames` frames is complete: without delay, delayed, flattened.

# %%
def my_steps(frames):
    no_delay = frames + 1                             # stream 6 says frame T - 1 at step T: T + 1 steps with step 0
    delayed = frames + 7                              # ... at step T - 1 + 6 + 1
    flattened = 7 * frames + 1                        # ... at step 7 (T - 1) + 6 + 1
    return no_delay, delayed, flattened


assert checks.steps_of(my_steps)

# %% [markdown]
# ## Exercise 3.2: undelay
#
# Line the streams up into frames again.

# %%
def my_undelay(delayed):
    T = delayed.shape[1] - 7
    return torch.stack([delayed[q, q + 1 : q + 1 + T] for q in range(7)])


assert checks.undelay(my_undelay)

# %% [markdown]
# ## Exercise 3.3: layer shift
#
# Ids of each stream to ids in the one big table.

# %%
def my_shift(audio, text_size, audio_size):
    return audio + text_size + audio_size * torch.arange(7)[:, None]


assert checks.layer_shift(my_shift)

# %% [markdown]
# ## Exercise 3.4: ask for a transcript
#
# The prompt of A1T1 in eight rows.

# %%
def my_prompt(vocab, positions):
    text = [vocab.input_t, *[vocab.pad_t] * positions, vocab.eot, vocab.asr]
    audio = torch.tensor([vocab.input_a, *[vocab.pad_a] * positions, vocab.eoa, vocab.pad_a])
    return torch.tensor(text), audio.expand(7, -1)


assert checks.transcript_prompt(my_prompt)
