"""Every id, rate and frame size of the project, each defined once.

Letter legend, used in all shape comments:
    B batch    Q = 7 audio streams    T frames of the codec (or features in time)
    S steps of the language model     D width    V vocabulary    N samples

Sources: arXiv 2408.16725 (the paper) and the public inference code gpt-omni/mini-omni.
"""

from dataclasses import dataclass

NUM_STREAMS = 7                              # audio tokens of one frame: 1 coarse + 2 middle + 4 fine
NUM_ROWS = NUM_STREAMS + 1                   # seven audio rows, then the text row

CODEC_RATE = 24_000                          # samples per second, what is spoken
FRAME_SAMPLES = 2048                         # samples per frame of seven tokens
FRAME_SECONDS = FRAME_SAMPLES / CODEC_RATE   # 0.0853 s
FRAMES_PER_SECOND = CODEC_RATE / FRAME_SAMPLES  # 11.72, the step rate that keeps up with real time

EAR_RATE = 16_000                            # samples per second, what is heard (Whisper)
EAR_HOP = 160                                # samples per log-mel column: 10 ms
FEATURE_SAMPLES = 2 * EAR_HOP                # the encoder halves the columns: 20 ms per feature
FEATURES_PER_SECOND = EAR_RATE // FEATURE_SAMPLES  # 50
MAX_QUESTION_SECONDS = 30                    # Whisper's positions end here
MIN_QUESTION_SECONDS = 0.1

NUM_SPECIALS = 64                            # ids kept free after each vocabulary, as in the release

# Where the seven tokens of a frame come from: (level, position within the level).
# Level 0 has 1 token a frame, level 1 has 2, level 2 has 4.
# Source: gpt-omni/mini-omni utils/snac_utils.py::reconstruct_tensors
FRAME_ORDER = ((0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (2, 2), (2, 3))
LEVEL_STRIDES = (4, 2, 1)                    # fine tokens spanned by one token of each level


@dataclass(frozen=True)
class Vocab:
    """The ids of one preset: text ids first, then seven shifted audio vocabularies.

    text_base:  ids of the language model's own (padded) vocabulary
    codebook:   entries of one codec codebook

    With text_base 151936 and codebook 4096 every id equals the released one
    (gpt-omni/mini-omni litgpt/config.py, inference.py).
    """

    text_base: int
    codebook: int

    # --- text row -----------------------------------------------------------
    @property
    def eot(self) -> int:
        """End of text."""
        return self.text_base

    @property
    def pad_t(self) -> int:
        """Nothing to say in the text row."""
        return self.text_base + 1

    @property
    def input_t(self) -> int:
        """The question's text starts."""
        return self.text_base + 2

    @property
    def answer_t(self) -> int:
        """The answer's text starts."""
        return self.text_base + 3

    @property
    def asr(self) -> int:
        """The transcript of the question starts."""
        return self.text_base + 4

    @property
    def text_size(self) -> int:
        """V_text: width of the text logits."""
        return self.text_base + NUM_SPECIALS

    # --- one audio row, before the layer shift ------------------------------
    @property
    def eoa(self) -> int:
        """End of audio; also the first id that is no codebook entry."""
        return self.codebook

    @property
    def pad_a(self) -> int:
        """A silent audio row."""
        return self.codebook + 1

    @property
    def input_a(self) -> int:
        """The question's audio starts."""
        return self.codebook + 2

    @property
    def answer_a(self) -> int:
        """The answer's audio starts."""
        return self.codebook + 3

    @property
    def split_a(self) -> int:
        """Reserved by the release, never used."""
        return self.codebook + 4

    @property
    def audio_size(self) -> int:
        """V_audio: width of the logits of one stream."""
        return self.codebook + NUM_SPECIALS

    # --- all rows in one table ----------------------------------------------
    @property
    def total_size(self) -> int:
        """Rows of the one embedding table of the release: 181,120 at its sizes."""
        return self.text_size + NUM_STREAMS * self.audio_size

    def shift(self, audio_id: int, stream: int) -> int:
        """Layer shift: the id of `audio_id` of `stream` (0..6) in the one big table."""
        return audio_id + self.text_size + self.audio_size * stream
