"""The constants of the project: every id, rate, frame size.

Letters in all shape comments:
    B batch    Q = 7 audio streams    T frames of the codec (or encoder features)
    S steps of the language model     D width    V vocabulary    N samples

Sources: arXiv 2408.16725 (the paper); the public inference code, gpt-omni/mini-omni.
"""

from dataclasses import dataclass

NUM_STREAMS = 7                              # audio streams: 1 coarse + 2 middle + 4 fine codes in a frame
NUM_ROWS = NUM_STREAMS + 1                   # seven audio streams, then the text stream

CODEC_RATE = 24_000                          # samples per second of the answer
FRAME_SAMPLES = 2048                         # samples per frame of seven codes
FRAME_SECONDS = FRAME_SAMPLES / CODEC_RATE   # 0.0853 s
FRAMES_PER_SECOND = CODEC_RATE / FRAME_SAMPLES  # 11.72, the step rate that keeps up with real time

EAR_RATE = 16_000                            # samples per second of the question (Whisper)
EAR_HOP = 160                                # samples per log-mel column: 10 ms
FEATURE_SAMPLES = 2 * EAR_HOP                # the encoder halves the columns: 20 ms per feature
FEATURES_PER_SECOND = EAR_RATE // FEATURE_SAMPLES  # 50
MAX_QUESTION_SECONDS = 30                    # Whisper's positions end here
MIN_QUESTION_SECONDS = 0.1

NUM_SPECIALS = 64                            # ids reserved for special tokens after each vocabulary, as in the release

# Where the seven codes of a frame come from: (level, position within the level).
# Level 0 has 1 code a frame, level 1 has 2, level 2 has 4.
# Source: gpt-omni/mini-omni utils/snac_utils.py::reconstruct_tensors
FRAME_ORDER = ((0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (2, 2), (2, 3))
LEVEL_STRIDES = (4, 2, 1)                    # fine codes spanned by one code of each level


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

    # --- the text stream ----------------------------------------------------
    @property
    def eot(self) -> int:
        """End of text."""
        return self.text_base

    @property
    def pad_t(self) -> int:
        """Padding: the text stream is silent."""
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
        """The question's transcript starts."""
        return self.text_base + 4

    @property
    def text_size(self) -> int:
        """V_text: width of the text logits."""
        return self.text_base + NUM_SPECIALS

    # --- one audio stream, before the layer shift ---------------------------
    @property
    def eoa(self) -> int:
        """End of audio; the first id after the codebook."""
        return self.codebook

    @property
    def pad_a(self) -> int:
        """Padding: the audio stream is silent."""
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
        """V_audio: width of the logits of one audio stream."""
        return self.codebook + NUM_SPECIALS

    # --- all streams in one table -------------------------------------------
    @property
    def total_size(self) -> int:
        """Entries of the release's one embedding table: 181,120 at its sizes."""
        return self.text_size + NUM_STREAMS * self.audio_size

    def shift(self, audio_id: int, stream: int) -> int:
        """Layer shift: the id of `audio_id` of `stream` (0..6) in the one table."""
        return audio_id + self.text_size + self.audio_size * stream
