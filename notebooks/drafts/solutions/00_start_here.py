# %% [markdown]
# # Solutions of 00 · Start here
#
# Each exercise in a line, one solution of many, and the same check. The lesson is [here](../00_start_here.ipynb).

# %%
import sys

if "google.colab" in sys.modules:                     # on Colab: fetch the project first
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "./omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import math

from omni_lite import checks
from omni_lite.vocab import CODEC_RATE, FRAME_SAMPLES

# %% [markdown]
# ## Exercise 0.1: frames
#
# How many frames of 2048 samples hold so many seconds of sound at 24 kHz?

# %%
def my_frames(seconds):
    return math.ceil(seconds * CODEC_RATE / FRAME_SAMPLES)


assert checks.frames_needed(my_frames)

# %% [markdown]
# ## Exercise 0.2: can it keep up?
#
# The real-time factor: time to make over time to play.

# %%
def my_rtf(total_ms, audio_s):
    return total_ms / 1000 / audio_s


assert checks.real_time_factor(my_rtf)

# %% [markdown]
# ## Exercise 0.3: the first sound
#
# When stood the first sound ready? `None` if there was none.

# %%
def my_first_sound(trace):
    for ms, made_s, _ in trace:
        if made_s > 0:
            return ms
    return None


assert checks.first_sound(my_first_sound)
