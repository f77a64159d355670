"""Plots of the course in one style, readable on a projector and safe for the colour-blind.

Every function draws and returns the axes; the notebook calls `plt.show()`. A plot that only one notebook needs is
in that notebook.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from omni_lite.vocab import FRAME_ORDER, FRAME_SECONDS, LEVEL_STRIDES

# Okabe and Ito's eight colours (jfly.uni-koeln.de/color), distinct for all common kinds of colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
GREY = "#8a8a8a"
# The colours of the streams in every notebook: the text stream, then audio streams 0..6 by level.
TEXT_COLOR = RED
STREAM_COLORS = (BLUE, GREEN, SKY, SKY, GREEN, SKY, SKY)      # coarse; middle; fine, in the order of the frame
LABEL_POINTS = 13


def use_style() -> None:
    """Set sizes and colours of all plots; call it once in a notebook's first cell."""
    plt.rcParams.update({
        "figure.figsize": (10, 4), "figure.dpi": 80, "savefig.dpi": 80, "figure.constrained_layout.use": True,
        "font.size": LABEL_POINTS, "axes.titlesize": LABEL_POINTS + 1, "axes.labelsize": LABEL_POINTS,
        "xtick.labelsize": LABEL_POINTS - 1, "ytick.labelsize": LABEL_POINTS - 1, "legend.fontsize": LABEL_POINTS - 1,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 2,
        "axes.prop_cycle": plt.cycler(color=[BLUE, RED, GREEN, ORANGE, SKY, PINK, BLACK]),
        "image.cmap": "cividis", "image.interpolation": "nearest", "image.aspect": "auto",
    })


def spectrogram(wav: np.ndarray, rate: int, ax: Axes | None = None, max_hz: int = 8000) -> Axes:
    """Spectrogram: windows of 25 ms, every 10 ms, with a range of 70 dB.

    wav: (N,) float at `rate`
    """
    ax = ax or plt.gca()
    ax.specgram(np.asarray(wav, np.float32) + 1e-9, NFFT=rate // 40, Fs=rate, noverlap=rate // 40 - rate // 100,
                vmin=-130, vmax=-60, cmap="cividis")
    ax.set(ylim=(0, min(max_hz, rate // 2)), xlabel="seconds", ylabel="Hz")
    return ax


# --- notebooks 00 to 03: tokens ---


EMPTY = "#efefef"                            # a silent cell
INCH_POINTS = 72


def token_grid(audio: Any, text: Sequence[Any] | None = None, silent: Sequence[Any] = (),
               names: Mapping[Any, str] | None = None, upto: int | None = None,
               marked: Sequence[tuple[int, int]] = (), ax: Axes | None = None) -> Axes:
    """The eight streams as a table of coloured cells, one column a step: text on top, audio streams below.

    audio:  (Q, S), Q <= 7, ids or strings
    text:   S ids or strings of the text stream; None: without it
    silent: ids that say nothing, drawn as a pale cell with a dot
    names:  labels instead of ids; such a cell is white with a coloured frame
    upto:   draw only the steps before this one
    marked: (stream, step) of cells with a black frame
    """
    ax = ax or plt.gca()
    streams = audio.tolist() if hasattr(audio, "tolist") else [list(row) for row in audio]
    rows = [(f"stream {q}", STREAM_COLORS[q], row) for q, row in enumerate(streams)]
    if text is not None:
        rows.insert(0, ("text", TEXT_COLOR, text.tolist() if hasattr(text, "tolist") else list(text)))
    steps, marks = len(streams[0]), names or {}
    cell_points = 0.86 * ax.figure.bbox.width / ax.figure.dpi * INCH_POINTS / steps
    for y, (_, color, row) in enumerate(rows):
        for x, value in enumerate(row[: steps if upto is None else upto]):
            quiet, label = value in silent, "·" if value in silent else str(marks.get(value, value))
            face = EMPTY if quiet else "white" if value in marks else color
            ax.add_patch(plt.Rectangle((x + 0.06, y + 0.08), 0.88, 0.84, facecolor=face, lw=1.5,
                                       edgecolor=EMPTY if quiet else color))
            points = min(LABEL_POINTS - 1, cell_points / (0.76 * max(2, len(label))))
            ink = GREY if quiet else "white" if face in (BLUE, RED, GREEN) else BLACK
            ax.text(x + 0.5, y + 0.53, label, ha="center", va="center", fontsize=max(5.0, points), color=ink)
    for q, x in marked:
        y = q + (text is not None)
        ax.add_patch(plt.Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, facecolor="none", edgecolor=BLACK, lw=2.5))
    every = 1 if steps <= 26 else 5
    ax.set(xlim=(0, steps), ylim=(len(rows), 0), xlabel="step", xticks=[x + 0.5 for x in range(0, steps, every)],
           xticklabels=range(0, steps, every), yticks=[y + 0.5 for y in range(len(rows))],
           yticklabels=[name for name, _, _ in rows])
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def levels_under(codes: Any, ax: Axes | None = None, numbers: bool = True) -> Axes:
    """The codec's tokens over time: one line a level, each box as long as its token's sound.

    codes: (7, T) int64, streams in the order of the frame
    """
    ax = ax or plt.gca()
    for q, row in enumerate(codes.tolist()):
        level, position = FRAME_ORDER[q]
        per_frame = LEVEL_STRIDES[0] // LEVEL_STRIDES[level]
        width = FRAME_SECONDS / per_frame
        for t, code in enumerate(row):
            start = t * FRAME_SECONDS + position * width
            ax.add_patch(plt.Rectangle((start, level + 0.08), width, 0.84, facecolor=STREAM_COLORS[q],
                                       edgecolor="white", lw=1))
            if numbers:
                ink = BLACK if level == 2 else "white"
                ax.text(start + width / 2, level + 0.5, code, ha="center", va="center", color=ink, clip_on=True,
                        fontsize=LABEL_POINTS - 2 * level - 1, rotation=90 if level == 2 else 0)
    ax.set(xlim=(0, codes.shape[-1] * FRAME_SECONDS), ylim=(len(LEVEL_STRIDES), 0), xlabel="seconds",
           yticks=[0.5, 1.5, 2.5], yticklabels=["coarse", "middle", "fine"])
    ax.tick_params(axis="y", length=0)
    return ax


# --- notebooks 04 to 07: the parts of the model and their training ---


PART_NAMES = {"asr_adapter": "ASR adapter", "text_embed": "text embeddings", "audio_embed": "audio embeddings",
              "trunk": "trunk", "tts_adapter": "TTS adapter"}
PART_COLORS = {"asr_adapter": GREEN, "text_embed": RED, "audio_embed": BLUE, "trunk": ORANGE, "tts_adapter": PINK}
FROZEN = "#dcdcdc"


def model_parts(trains: tuple[str, ...] | None = None, ax: Axes | None = None, title: str = "") -> Axes:
    """The whole model as boxes: trained parts are coloured, frozen parts are grey and hatched.

    trains: names of parts as in the phase table; None: all parts but Whisper
    """
    ax = ax or plt.gca()
    boxes = (  # left, bottom, width, label, part
        (0.0, 0.3, 2.0, "Whisper\nencoder", ""), (2.7, 0.3, 2.0, "ASR\nadapter", "asr_adapter"),
        (2.7, 1.8, 2.0, "audio\nembeddings", "audio_embed"), (2.7, 3.3, 2.0, "text\nembeddings", "text_embed"),
        (6.3, 1.8, 1.9, "trunk", "trunk"), (8.9, 3.3, 2.0, "text head\n(tied)", "text_embed"),
        (8.9, 0.3, 2.0, "TTS adapter,\naudio head", "tts_adapter"))
    for left, bottom, width, label, part in boxes:
        free = part in PART_NAMES and (trains is None or part in trains)     # Whisper is always frozen
        ax.add_patch(plt.Rectangle((left, bottom), width, 1.1, facecolor=PART_COLORS[part] + "70" if free else FROZEN,
                                   edgecolor=BLACK if free else GREY, hatch=None if free else "///", lw=1.5))
        ax.text(left + width / 2, bottom + 0.55, label, ha="center", va="center", fontsize=LABEL_POINTS - 1,
                bbox=None if free else dict(facecolor="white", edgecolor="none", alpha=0.75, pad=1))
    ax.text(5.5, 2.35, "mean\nof 8", ha="center", va="center", fontsize=LABEL_POINTS - 2)
    for start, end in (((2.0, 0.85), (2.7, 0.85)), ((4.7, 0.85), (5.3, 2.0)), ((4.7, 2.35), (5.1, 2.35)),
                       ((4.7, 3.85), (5.3, 2.75)), ((5.9, 2.35), (6.3, 2.35)), ((8.2, 2.6), (8.9, 3.7)),
                       ((8.2, 2.1), (8.9, 1.0)), ((10.9, 3.85), (11.5, 3.85)), ((10.9, 0.85), (11.5, 0.85))):
        ax.annotate("", end, start, arrowprops=dict(arrowstyle="->", lw=1.5))
    ax.text(11.6, 3.85, "words", va="center")
    ax.text(11.6, 0.85, "7 codes", va="center")
    ax.set(xlim=(-0.1, 13.2), ylim=(0.1, 4.6), title=title)
    ax.axis("off")
    return ax


def budget(sizes: dict[str, dict[str, int]], ax: Axes | None = None) -> Axes:
    """One bar a model: the share of each part, and its millions of parameters."""
    ax = ax or plt.gca()
    for row, parts in enumerate(sizes.values()):
        total, left = sum(parts.values()), 0.0
        for part, count in parts.items():
            share = 100 * count / total
            ax.barh(row, share, left=left, color=PART_COLORS[part], edgecolor="white", height=0.6,
                    label=PART_NAMES[part] if row == 0 else None)
            if share > 5:
                ax.text(left + share / 2, row, f"{count / 1e6:.1f}", ha="center", va="center", color=BLACK)
            left += share
        ax.text(101, row, f"{total / 1e6:.1f} M", va="center")
    ax.set(yticks=range(len(sizes)), yticklabels=list(sizes), xlim=(0, 113), xlabel="% of the parameters")
    ax.invert_yaxis()
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    return ax


def gradient_grid(norms: dict[str, dict[str, float]], ax: Axes | None = None) -> Axes:
    """The gradient norm of each part (columns) for each task (rows); hatched if it is 0."""
    ax = ax or plt.gca()
    parts = list(next(iter(norms.values())))
    values = np.array([[row[part] for part in parts] for row in norms.values()])
    shown = np.log10(np.where(values > 0, values, np.nan))
    ax.imshow(shown, cmap="cividis")
    middle = np.nanmean(shown)
    for (row, column), value in np.ndenumerate(values):
        if value > 0:
            ax.text(column, row, f"{value:.2f}" if value >= 0.01 else f"{value:.0e}", ha="center", va="center",
                    color="black" if shown[row, column] > middle else "white")
        else:
            ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=FROZEN, edgecolor=GREY, hatch="///"))
    ax.set(xticks=range(len(parts)), xticklabels=[PART_NAMES[part].replace(" ", "\n") for part in parts],
           yticks=range(len(norms)), yticklabels=[str(task) for task in norms])
    ax.tick_params(length=0)
    return ax


def moved(changes: dict[str, float], ax: Axes | None = None, title: str = "which parts moved") -> Axes:
    """Root mean square change of a weight, by part; parts that did not change are hatched."""
    ax = ax or plt.gca()
    positive = [change for change in changes.values() if change > 0]
    low, high = min(positive, default=1e-3) / 10, max(positive, default=1e-2) * 3
    for row, (part, change) in enumerate(changes.items()):
        if change > 0:
            ax.barh(row, change, left=0, color=PART_COLORS[part], height=0.6)
        else:
            ax.barh(row, high, color=FROZEN, edgecolor=GREY, hatch="///", height=0.6)
            ax.text(low * 1.3, row, "frozen: not one bit changed", va="center",
                    bbox=dict(facecolor="white", edgecolor="none", alpha=0.8, pad=1))
    ax.set(xscale="log", xlim=(low, high), yticks=range(len(changes)), title=title,
           yticklabels=[PART_NAMES[part] for part in changes], xlabel="root mean square change of one weight")
    ax.xaxis.set_minor_formatter(NullFormatter())        # 2e-3, 3e-3 ... would overlap
    ax.invert_yaxis()
    return ax


def running_mean(values: list[float], window: int) -> np.ndarray:
    """Mean of the last `window` values at every place, or of all if there are fewer."""
    sums = np.cumsum([0.0, *values])
    at = np.arange(1, len(values) + 1)
    first = np.maximum(0, at - window)
    return (sums[at] - sums[first]) / (at - first)


def losses_and_parts(segments: list[tuple[str, list[float], tuple[str, ...]]], label: str = "loss",
                     color: str = BLUE) -> np.ndarray:
    """Loss over the steps of several phases; below it, the trained and the frozen parts.

    segments: (name, loss of every step, trained parts)
    returns:  the two axes
    """
    _, axes = plt.subplots(2, 1, figsize=(10, 5.5), sharex=True, height_ratios=(3, 1.4))
    at = 0
    for name, losses, trains in segments:
        steps = np.arange(at, at + len(losses))
        axes[0].plot(steps, losses, color=color, alpha=0.25, lw=1)
        axes[0].plot(steps, running_mean(losses, max(5, len(losses) // 15)), color=color,
                     label=label if at == 0 else None)
        if at:
            for ax in axes:
                ax.axvline(at, color=GREY, lw=1)
        if len(segments) > 1:
            axes[0].text(at + len(losses) / 2, 1.0, name, ha="center", va="bottom",
                         transform=axes[0].get_xaxis_transform())
        for row, part in enumerate(PART_NAMES):
            free = part in trains
            axes[1].broken_barh([(at, len(losses))], (row - 0.4, 0.8), facecolor=PART_COLORS[part] if free else FROZEN,
                                edgecolor="white" if free else GREY, hatch=None if free else "///")
        at += len(losses)
    axes[0].set(ylabel="loss")
    axes[0].legend()
    axes[1].set(yticks=range(len(PART_NAMES)), yticklabels=list(PART_NAMES.values()), xlim=(0, at),
                xlabel="step (coloured: trained; grey, hatched: frozen)")
    axes[1].tick_params(axis="y", labelsize=LABEL_POINTS - 3)
    axes[1].invert_yaxis()
    return axes


def token_map(values: np.ndarray, words: list[str], seconds: float, ax: Axes | None = None, title: str = "") -> Axes:
    """A value for each token (rows) over time (columns), such as an alignment.

    values: (n, T), 0 or more;  seconds: of one column
    """
    ax = ax or plt.gca()
    values = np.asarray(values)
    n, T = values.shape
    ax.imshow(values, extent=(0, T * seconds, n - 0.5, -0.5), vmin=0)
    ax.set(yticks=range(n), yticklabels=words, xlabel="seconds", title=title)
    return ax


# --- notebooks 08, 09, 10 ---


BAND_COLORS = (BLUE, ORANGE, SKY, PINK, YELLOW, GREY, BLACK)  # of stages or parts, in order
SOUND_COLOR = GREEN


def stacked_bars(runs: Mapping[str, Mapping[str, float]], unit: str = "ms", ax: Axes | None = None) -> Axes:
    """One bar a run, one colour a part, the sum after the bar: for example a latency budget.

    runs: name of the run -> part -> size; the parts of all runs in the same order
    """
    ax = ax or plt.gca()
    parts = list(dict.fromkeys(part for run in runs.values() for part in run))
    longest = max(sum(run.values()) for run in runs.values())
    for y, run in enumerate(runs.values()):
        left = 0.0
        for part, size in run.items():
            ax.barh(y, size, left=left, height=0.62, color=BAND_COLORS[parts.index(part) % len(BAND_COLORS)],
                    edgecolor="white")
            left += size
        ax.text(left + 0.01 * longest, y, f"{left:.3g} {unit}", va="center")
    handles = [Patch(color=BAND_COLORS[i % len(BAND_COLORS)], label=part) for i, part in enumerate(parts)]
    ax.legend(handles=handles, ncols=min(5, len(parts)), loc="lower left", bbox_to_anchor=(0, 1))
    ax.set(yticks=range(len(runs)), yticklabels=list(runs), ylim=(len(runs) - 0.4, -0.6), xlim=(0, 1.15 * longest),
           xlabel=unit)
    return ax


def timeline(stories: Mapping[str, Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Time lines of answers: above the model's work with a tick for each word, below it the playback.

    stories: name -> spans    [(what, begin_s, end_s)] of the model's work, in order
                     words_s  [t] when each word appears
                     sound_s  (begin_s, seconds) of the playback
    """
    ax = ax or plt.gca()
    whats = list(dict.fromkeys(what for story in stories.values() for what, _, _ in story["spans"]))
    for y, story in enumerate(stories.values()):
        for what, begin, end in story["spans"]:
            ax.barh(y - 0.2, end - begin, left=begin, height=0.34, color=BAND_COLORS[whats.index(what)],
                    edgecolor="white")
        ax.vlines(story["words_s"], y - 0.44, y - 0.37, color=BLACK, lw=1.5)
        begin, seconds = story["sound_s"]
        ax.barh(y + 0.2, seconds, left=begin, height=0.34, color=SOUND_COLOR)
        ax.text(begin, y + 0.2, f" first audio after {1000 * begin:.0f} ms", va="center", clip_on=True)
    handles = [Patch(color=BAND_COLORS[i], label=what) for i, what in enumerate(whats)]
    handles.append(Patch(color=SOUND_COLOR, label="sound plays"))
    ax.legend(handles=handles, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    ax.set(yticks=range(len(stories)), yticklabels=list(stories), ylim=(len(stories) - 0.45, -0.6), xlim=(0, None),
           xlabel="seconds after the question's end")
    return ax


def intervals(groups: Mapping[str, tuple[float, float, float]], ax: Axes | None = None, color: str = BLUE) -> Axes:
    """A measured value and its interval, one line a group: name -> (value, low, high)."""
    ax = ax or plt.gca()
    for y, (value, low, high) in enumerate(groups.values()):
        ax.plot([low, high], [y, y], color=color, lw=4, alpha=0.45, solid_capstyle="butt")
        ax.plot(value, y, "o", color=color, ms=8)
    ax.set(yticks=range(len(groups)), yticklabels=list(groups), ylim=(len(groups) - 0.4, -0.6))
    ax.grid(axis="x", alpha=0.3)
    return ax


def edit_table(table: np.ndarray, reference: Sequence[str], hypothesis: Sequence[str], ax: Axes | None = None) -> Axes:
    """The table of edit distances, and one path with the fewest edits.

    table: (n + 1, m + 1), the distance of the first i words of the reference to the first j of the hypothesis
    """
    ax = ax or plt.gca()
    ax.imshow(table, cmap="cividis", alpha=0.55)
    for (i, j), value in np.ndenumerate(table):
        ax.text(j, i, str(value), ha="center", va="center")
    i, j = len(reference), len(hypothesis)
    path = [(j, i)]
    while i or j:
        if i and j and reference[i - 1] == hypothesis[j - 1] and table[i, j] == table[i - 1, j - 1]:
            i, j = i - 1, j - 1
        elif i and table[i, j] == table[i - 1, j] + 1:
            i -= 1
        elif j and table[i, j] == table[i, j - 1] + 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
        path.append((j, i))
    ax.plot(*zip(*path, strict=True), color=RED, lw=8, alpha=0.35, solid_joinstyle="round")
    ax.set_xticks(range(len(hypothesis) + 1), ["", *hypothesis], rotation=35, ha="right")
    ax.set_yticks(range(len(reference) + 1), ["", *reference])
    ax.set(xlabel="hypothesis", ylabel="reference")
    return ax
