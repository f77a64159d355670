# %% [markdown]
# # 04 · The model: solutions
#
# For the exercises of [04 · The model](../04_the_model.ipynb). Try them yourself first: the checks say what is missing.

# %%
import torch

from omni_lite import checks

# %% [markdown]
# ## Exercise 1: the mean of eight embeddings, without loops over steps

# %%
def my_mean(text_table, audio_table, text_ids, audio_ids):
    """text_ids (B, S), audio_ids (B, 7, S) -> (B, S, D)"""
    bands = torch.arange(7)[:, None] * (len(audio_table) // 7)              # the layer shift: (7, 1)
    audio = audio_table[audio_ids + bands]                                  # (B, 7, S, D)
    return (text_table[text_ids] + audio.sum(1)) / 8


assert checks.mean_of_eight(my_mean)

# %% [markdown]
# ## Exercise 2: the parameters of a Qwen2 trunk

# %%
def my_count(width, mlp, layers, heads, kv_heads):
    """Without embeddings; queries, keys and values have biases, nothing else has."""
    kv = width * kv_heads // heads
    queries_and_output = 2 * width * width
    keys_and_values = 2 * width * kv
    biases = width + 2 * kv
    gate_up_down = 3 * width * mlp
    norms = 2 * width
    return layers * (queries_and_output + keys_and_values + biases + gate_up_down + norms) + width


assert checks.trunk_parameters(my_count)

# %% [markdown]
# ## Exercise 3: one step at a time, with a cache

# %%
def my_steps(model, x):
    """x (1, S, D) -> what the trunk says at every step, (1, S, D)"""
    cache = model.new_cache()
    return torch.cat([model.run(x[:, s : s + 1], cache) for s in range(x.shape[1])], dim=1)


assert checks.one_step_at_a_time(my_steps)

# %% [markdown]
# ## Exercise 4: which parts does each task's loss reach?
#
# Every step's input holds a text embedding and seven audio embeddings, silent or not, and every loss comes through the
# trunk. The ears are reached by what is heard, the voice by what is spoken.

# %%
always = {"text_embed", "audio_embed", "trunk"}
my_parts = {
    "A1A2": always | {"asr_adapter", "tts_adapter"},
    "A1T2": always | {"asr_adapter"},
    "A1T1": always | {"asr_adapter"},
    "T1A2": always | {"tts_adapter"},
    "T1T2": always,
}
assert checks.where_gradients_go(my_parts)
