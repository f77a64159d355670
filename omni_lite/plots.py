"""Pictures of the course: one consistent style, readable on a projector, safe for the colour-blind.

Every function draws and returns the axes; the notebook calls `plt.show()`. A picture that one notebook
alone draws stays in that notebook.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

# Okabe and Ito's eight colours (jfly.uni-koeln.de/color), distinct for every common kind of colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
GREY = "#8a8a8a"
# One colour a row of the layout, the same in every notebook: the text row, then streams 0..6 by level.
TEXT_COLOR = RED
STREAM_COLORS = (BLUE, GREEN, SKY, SKY, GREEN, SKY, SKY)      # coarse; middle; fine, in the order of the frame
LABEL_POINTS = 13


def use_style() -> None:
    """Call once in a notebook's first cell: sizes and colours of every picture after it."""
    plt.rcParams.update({
        "figure.figsize": (10, 4), "figure.dpi": 80, "savefig.dpi": 80, "figure.constrained_layout.use": True,
        "font.size": LABEL_POINTS, "axes.titlesize": LABEL_POINTS + 1, "axes.labelsize": LABEL_POINTS,
        "xtick.labelsize": LABEL_POINTS - 1, "ytick.labelsize": LABEL_POINTS - 1, "legend.fontsize": LABEL_POINTS - 1,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 2,
        "axes.prop_cycle": plt.cycler(color=[BLUE, RED, GREEN, ORANGE, SKY, PINK, BLACK]),
        "image.cmap": "cividis", "image.interpolation": "nearest", "image.aspect": "auto",
    })


def spectrogram(wav: np.ndarray, rate: int, ax: Axes | None = None, max_hz: int = 8000) -> Axes:
    """Loudness of every pitch over time: windows of 25 ms, every 10 ms, 70 dB from black to bright.

    wav: (N,) float at `rate`
    """
    ax = ax or plt.gca()
    ax.specgram(np.asarray(wav, np.float32) + 1e-9, NFFT=rate // 40, Fs=rate, noverlap=rate // 40 - rate // 100,
                vmin=-130, vmax=-60, cmap="cividis")
    ax.set(ylim=(0, min(max_hz, rate // 2)), xlabel="seconds", ylabel="Hz")
    return ax
