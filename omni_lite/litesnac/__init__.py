"""The lite preset's own codec: SNAC's multi-scale residual quantizer in a network that a CPU can train."""

from omni_lite.litesnac.codec import LiteSNAC

__all__ = ["LiteSNAC"]
