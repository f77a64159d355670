"""Checks of exercises, by notebook: `checks.undelay(my_undelay)` tests a solution and explains a mistake."""

from omni_lite.course.checks.exercise import Wrong, exercise
from omni_lite.course.checks.parts import (
    bits_per_second,
    centred_cosine,
    cut_windows,
    entropy_bits,
    first_sound,
    frames_needed,
    layer_shift,
    mean_of_eight,
    mix_at_snr,
    nearest_entry,
    one_step_at_a_time,
    positions_of,
    real_time_factor,
    steps_of,
    transcript_prompt,
    trunk_parameters,
    undelay,
    weave_frames,
    where_gradients_go,
)
from omni_lite.course.checks.streaming import (
    crossfade,
    error_kinds,
    keeps_up,
    mcnemar,
    new_rows,
    nucleus,
    sample_size,
    split_groups,
    split_pack,
    start_delay,
    two_rows,
)
from omni_lite.course.checks.training import (
    draw_code,
    freezing,
    kept_lost_won,
    learning_rate,
    learning_shares,
    paired_bootstrap,
    stacking,
    two_mouths_loss,
    whose_turn,
)

__all__ = [
    "Wrong", "bits_per_second", "centred_cosine", "crossfade", "cut_windows", "draw_code", "entropy_bits",
    "error_kinds", "exercise", "first_sound", "frames_needed", "freezing", "keeps_up", "kept_lost_won",
    "layer_shift", "learning_rate", "learning_shares", "mcnemar", "mean_of_eight", "mix_at_snr", "nearest_entry",
    "new_rows", "nucleus", "one_step_at_a_time", "paired_bootstrap", "positions_of", "real_time_factor",
    "sample_size", "split_groups", "split_pack", "stacking", "start_delay", "steps_of", "transcript_prompt",
    "trunk_parameters", "two_mouths_loss", "two_rows", "undelay", "weave_frames", "where_gradients_go", "whose_turn",
]
