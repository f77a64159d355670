"""Decode as the released Mini-Omni code does, id for id: `generate(..., delay=ReleaseDelay)`.

Source: gpt-omni/mini-omni litgpt/generate/base.py::generate_TA_BATCH
"""

from collections.abc import Sequence
from typing import ClassVar

from omni_lite.generate import Delay
from omni_lite.vocab import NUM_STREAMS


class ReleaseDelay(Delay):
    """The release's rules: every drawn id counts as it is, and stream 6 ends the answer.

    A well-trained model gives the same codes under both rules. Where they differ:
        stream i before step i + 1         as drawn; `Delay` puts pad_a
        special tokens                     can be drawn anywhere; `Delay` allows eoa alone, in stream 0
        end                                eoa in stream 6 after step 0; `Delay` ends with stream 0, so the
                                           last frame is always complete
        after a stream's end               as drawn until stream 6 ends; `Delay` puts eoa once, then pad_a
        eot as the first text id           the text goes on; `Delay` ends it
    The release gives frames with special tokens to its codec; here they are not played. The last step of a
    spoken answer, which ends it, and the eot of a written one are not in the release's lists.
    """

    any_id: ClassVar[bool] = True
    spare: ClassVar[int] = 1

    def ends_text(self, step: int, text_id: int) -> bool:
        """Whether the text ends with this id: with eot, but not at step 0."""
        return step > 0 and super().ends_text(step, text_id)

    def place(self, drawn: Sequence[int]) -> list[int]:
        """The same ids; ends with eoa in stream 6, or when the last frame before the limit is complete."""
        self.said.append(list(drawn))
        frames = len(self.said) - NUM_STREAMS                  # complete ones
        if len(self.said) > 1 and drawn[-1] == self.vocab.eoa:
            self.frames = max(0, frames - 1)                   # this step completes the end, not a frame
        elif frames == self.limit:
            self.frames, self.cut = frames, True
        return list(drawn)

    def frame(self) -> list[int] | None:
        """The frame that the latest step completed, if it holds codes only."""
        frame = super().frame()
        return None if frame is None or max(frame) >= self.vocab.codebook else frame

    @property
    def done(self) -> bool:
        """The end was drawn, or the limit reached."""
        return self.frames is not None
