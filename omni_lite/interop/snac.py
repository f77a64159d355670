"""The published 24 kHz SNAC behind LiteSNAC's interface.

Sources: Siuzdak et al. 2024, arXiv 2410.14411; code and weights of hubertsiuzdak/snac, MIT licence.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import snac
import torch
from snac.layers import DecoderBlock, NoiseBlock, ResidualUnit
from torch import Tensor, nn
from torch.nn import functional as F

from omni_lite.checkpoints import copy_tensors
from omni_lite.codec import (
    CodecStream,
    OverlapAdd,
    Pointwise,
    Stage,
    Windowed,
    check_codes,
    check_wav,
    frames_from_levels,
    levels_from_frames,
)
from omni_lite.config import CodecConfig
from omni_lite.interop.hub import download, load_pickle, one_line
from omni_lite.vocab import CODEC_RATE, LEVEL_STRIDES

SNAC_ID = "hubertsiuzdak/snac_24khz"         # on the Hugging Face hub; "@commit" after it fixes the version
SNAC_FILES = ("config.json", "pytorch_model.bin")
SNAC_24KHZ = {                               # hubertsiuzdak/snac_24khz, config.json
    "sampling_rate": CODEC_RATE,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": list(LEVEL_STRIDES),
    "noise": True,
    "depthwise": True,
}


class NoiseSource:
    """Gaussian noise that depends on the seed alone, not on the sizes of the requests.

    `torch.randn` of 2n numbers differs from twice n, so noise is always drawn in pieces of one frame.
    All sounds of a batch get the same noise, so each decodes as it would alone.
    """

    def __init__(self, seed: int, piece: int) -> None:
        self.piece = piece                   # numbers drawn at a time
        self.generator = torch.Generator().manual_seed(seed)
        self.left_over = torch.zeros(1, 1, 0)

    def take(self, like: Tensor) -> Tensor:
        """The next L numbers for `like` (B, C, L): (1, 1, L) of its device and dtype."""
        L = like.shape[-1]
        pieces = [self.left_over]
        for _ in range(math.ceil((L - self.left_over.shape[-1]) / self.piece)):
            pieces.append(torch.randn(1, 1, self.piece, generator=self.generator))
        noise = torch.cat(pieces, dim=-1)
        self.left_over = noise[..., L:].clone()
        return noise[..., :L].to(like)


class Snac(nn.Module):
    """`snac.SNAC` with LiteSNAC's interface: (B, 7, T) codes, repeatable noise, streaming.

    model: a SNAC with three levels of strides 4, 2, 1 and no attention, such as the 24 kHz one
    """

    def __init__(self, model: snac.SNAC) -> None:
        super().__init__()
        if tuple(model.vq_strides) != LEVEL_STRIDES or model.attn_window_size is not None:
            raise ValueError(
                f"frames of seven tokens need a SNAC with strides {LEVEL_STRIDES} and no attention, "
                f"got strides {tuple(model.vq_strides)} and attention window {model.attn_window_size}"
            )
        self.model = model
        self.sample_rate = int(model.sampling_rate)
        self.codebook_size = int(model.codebook_size)
        self.frame_samples = int(model.hop_length) * LEVEL_STRIDES[0]  # 2048 at 24 kHz

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Sound to codes; silence fills the last frame.

        wav:     (B, 1, N) float32 at `sample_rate`
        returns: (B, 7, T) int64, T = N / frame_samples rounded up
        raises:  ValueError on a wrong shape or dtype, or NaN
        """
        check_wav(wav)
        return frames_from_levels(self.model.encode(wav))

    @torch.no_grad()
    def decode(self, codes: Tensor, seed: int = 0) -> Tensor:
        """Codes to sound, with the package's own modules and noise from `seed`.

        codes:   (B, 7, T) int64, no special tokens
        seed:    the same seed gives the same sound
        returns: (B, 1, T * frame_samples) float32
        raises:  ValueError on a wrong shape or dtype, or an id outside the codebook
        """
        check_codes(codes, self.codebook_size)
        if codes.shape[-1] == 0:
            return torch.zeros(codes.shape[0], 1, 0, device=codes.device)
        x = self.model.quantizer.from_codes(levels_from_frames(codes))
        noises = self._noise_sources(seed)
        for layer in self.model.decoder.model:
            for part in layer.block if isinstance(layer, DecoderBlock) else [layer]:
                x = x + next(noises).take(x) * part.linear(x) if isinstance(part, NoiseBlock) else part(x)
        return x

    def stream(self, seed: int = 0) -> CodecStream:
        """A decoder for codes that come frame by frame, with this module's weights at the time of the call.

        seed: of the noise, as in `decode`
        """
        noises = self._noise_sources(seed)
        stages: list[Stage] = []
        for layer in self.model.decoder.model:
            for part in layer.block if isinstance(layer, DecoderBlock) else [layer]:
                if isinstance(part, nn.Conv1d):
                    stages.append(_stream_conv(part))
                elif isinstance(part, nn.ConvTranspose1d):
                    stages += _stream_transposed(part)
                elif isinstance(part, ResidualUnit):
                    stages.append(_stream_residual(part))
                elif isinstance(part, NoiseBlock):
                    stages.append(_stream_noise(part, next(noises)))
                else:
                    stages.append(Pointwise(part))  # Snake1d, Tanh
        return CodecStream(self.model.quantizer, stages)

    def _noise_sources(self, seed: int) -> Iterator[NoiseSource]:
        """One for each noise block, in order; a piece is one frame's columns there."""
        blocks = [layer.block for layer in self.model.decoder.model if isinstance(layer, DecoderBlock)]
        piece = LEVEL_STRIDES[0]             # columns of a frame before the first block
        for index, block in enumerate(blocks):
            piece *= next(part.stride[0] for part in block if isinstance(part, nn.ConvTranspose1d))
            yield NoiseSource(seed * len(blocks) + index, piece)


def _unpadded(conv: nn.Conv1d) -> Callable[[Tensor], Tensor]:
    """The convolution without its padding; its normalised weight is computed once, not at every call."""
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    return lambda x: F.conv1d(x, weight, bias, dilation=conv.dilation, groups=conv.groups)


def _stream_conv(conv: nn.Conv1d) -> Windowed:
    reach = int(conv.padding[0])
    return Windowed(_unpadded(conv), reach, reach, axis=2)


def _stream_transposed(conv: nn.ConvTranspose1d) -> list[Stage]:
    assert conv.bias is not None             # snac's always have one
    weight, bias = conv.weight.detach(), conv.bias.detach()[:, None]
    stride, kernel, trim = conv.stride[0], conv.kernel_size[0], int(conv.padding[0])
    spread = OverlapAdd(
        lambda x: F.conv_transpose1d(x, weight, stride=stride),
        tail=kernel - stride,
        first=trim,
        last=trim - conv.output_padding[0],
    )
    return [spread, Pointwise(lambda x: x + bias)]


def _stream_residual(unit: ResidualUnit) -> Windowed:
    """Snake, wide convolution, snake, 1x1 convolution, skip connection; snake keeps the zeros of the padding."""
    snake_1, wide, snake_2, narrow = unit.block
    convolve, mix, reach = _unpadded(wide), _unpadded(narrow), wide.padding[0]

    def layer(x: Tensor) -> Tensor:
        return x[..., reach : x.shape[-1] - reach] + mix(snake_2(convolve(snake_1(x))))

    return Windowed(layer, reach, reach, axis=2)


def _stream_noise(block: NoiseBlock, source: NoiseSource) -> Pointwise:
    linear = _unpadded(block.linear)
    return Pointwise(lambda x: x + source.take(x) * linear(x))


# --- weights ----------------------------------------------------------------------------------------


def load_snac(folder: str | Path | None = None) -> snac.SNAC:
    """The published 24 kHz SNAC in float32, on the CPU, in eval mode.

    folder: if it exists, it holds config.json and pytorch_model.bin; otherwise they come from the Hugging Face
            hub or its cache
    """
    if folder is None or not Path(folder).is_dir():
        folder = download(SNAC_ID, SNAC_FILES, folder)
    config, weights = (Path(folder) / name for name in SNAC_FILES)
    remedy = f"fetch it again from {SNAC_ID} on the Hugging Face hub"
    if not config.is_file():
        raise FileNotFoundError(f"There is no {config}: {remedy}.")
    try:
        with torch.random.fork_rng(devices=[]):
            model = snac.SNAC.from_config(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{config} does not describe a SNAC ({one_line(error)}): {remedy}.") from error
    copy_tensors(model, load_pickle(weights), weights, remedy)
    return model.eval()


def random_snac(config: CodecConfig) -> Snac:
    """SNAC with random weights, at its published size except for the codebooks, in eval mode."""
    sizes = SNAC_24KHZ | {"codebook_size": config.codebook, "codebook_dim": config.codebook_dim}
    return Snac(snac.SNAC(**sizes)).eval()
