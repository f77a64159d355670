"""Several encodings of one recording, as data augmentation for the voice."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from omni_lite.codec import frames_from_levels, pad_to_frames
from omni_lite.litesnac.codec import LiteSNAC, quantize
from omni_lite.vocab import FRAME_SAMPLES, LEVEL_STRIDES


@torch.no_grad()
def encode_takes(codec: LiteSNAC, wav: Tensor) -> list[Tensor]:
    """Codes of the same sound after 0, 1/4, 2/4 and 3/4 of a frame of silence.

    The offset of the frames changes every code, so the TTS adapter gets four recordings instead of one. The encoder
    runs once for all four.

    wav:     (N,) float32 at 24 kHz
    returns: four of (7, T) int64, T = (N + delay) / 2048 rounded up
    """
    columns = LEVEL_STRIDES[0]                   # of one frame
    column = FRAME_SAMPLES // columns
    latents = codec.encoder(pad_to_frames(F.pad(wav[None, None], (column * (columns - 1), FRAME_SAMPLES))))
    takes = []
    for k in range(columns):
        T = math.ceil((len(wav) + k * column) / FRAME_SAMPLES)
        first = columns - 1 - k
        window = latents.transpose(1, 2)[..., first : first + T * columns]
        takes.append(frames_from_levels(quantize(codec.quantizer, window).codes)[0])
    return takes
