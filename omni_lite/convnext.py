"""The ConvNeXt block that the lite preset's ASR adapter and codec are built from."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL = 7                                   # columns that one depthwise convolution sees


class ConvNeXtBlock(nn.Module):
    """Mix neighbours in time within each channel, then channels within each column.

    Time is the second axis, so the pointwise layers are plain Linear. The depthwise convolution runs
    as a 2-d one in channels-last layout: 2 to 3 times faster on a CPU than Conv1d between transposes.

    source: arXiv 2201.03545; Vocos, vocos/modules.py::ConvNeXtBlock
    """

    def __init__(self, width: int, lookahead: int, scale: float) -> None:
        super().__init__()
        self.left, self.right = KERNEL - 1 - lookahead, lookahead  # columns seen before and after
        self.depthwise = nn.Conv1d(width, width, KERNEL, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.shrink = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D), with zeros as padding on both sides."""
        return self.inner(F.pad(x, (0, 0, self.left, self.right)))

    def inner(self, x: Tensor) -> Tensor:
        """Without padding, for streaming: (B, L + 6, D) -> (B, L, D)."""
        L = x.shape[1] - self.left - self.right
        image = x.transpose(1, 2).unsqueeze(2)  # (B, D, 1, L + 6), channels last in memory
        y = F.conv2d(image, self.depthwise.weight.unsqueeze(2), self.depthwise.bias, groups=image.shape[1])
        y = self.norm(y.squeeze(2).transpose(1, 2))
        y = self.shrink(F.gelu(self.expand(y)))
        return x[:, self.left : self.left + L] + self.scale * y
