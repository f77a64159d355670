"""How this process gets its memory from the system.

Every function does nothing on systems that lack what it needs.
"""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import PAGESIZE, mmap
from pathlib import Path

import torch
from torch import Tensor

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of mallopt(3), from glibc's <malloc.h>
USUAL_BYTES, LEAN_BYTES = 32 * 2**20, 64 * 2**10
MADV_COLLAPSE = 25                           # of Linux's madvise(2)
HUGE_PAGE = 2 * 2**20                        # bytes; a usual page has 4096
HUGE_FILLED = 15 / 16                        # a piece with less in use keeps usual pages: a huge page takes all 2 MB


@contextmanager
def lean_heap() -> Iterator[None]:
    """Return freed memory to the system at once, if the C library is glibc.

    Packing makes and frees a copy of every matrix. glibc keeps freed pieces of up to 32 MB between those in use,
    so 500 MB of int8 weights took 900 MB. Inside this block it asks the system for each piece separately. That is
    slow, so the block is for loading; afterwards the limits are where glibc's own adaptation ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    for which in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        mallopt(which, LEAN_BYTES)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, USUAL_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2 * USUAL_BYTES)


@contextmanager
def huge_pages() -> Iterator[None]:
    """Move memory that this block allocates and keeps into huge pages, on Linux from 6.1 on.

    A step reads every weight once. 500 MB in usual pages have 120,000 addresses to look up, more than a processor
    caches; in huge pages they have 250. Many systems give huge pages only on request. Source: madvise(2)
    """
    before = huge_pieces()
    yield
    for piece in huge_pieces() - before:
        if filled(piece) >= HUGE_FILLED:
            gather(piece)


def filled(piece: int) -> float:
    """The share of a 2 MB piece that is in use, 0 to 1; 0 if the system does not tell. Source: mincore(2)."""
    pages = (ctypes.c_ubyte * (HUGE_PAGE // PAGESIZE))()
    mincore = getattr(ctypes.CDLL(None), "mincore", None)
    if mincore is None or mincore(ctypes.c_void_p(piece), ctypes.c_size_t(HUGE_PAGE), pages):
        return 0.0
    return sum(page & 1 for page in pages) / len(pages)


def gather(piece: int) -> None:
    """Make one huge page of the piece; if the system refuses, nothing changes."""
    ctypes.CDLL(None).madvise(ctypes.c_void_p(piece), ctypes.c_size_t(HUGE_PAGE), MADV_COLLAPSE)


def huge_pieces() -> set[int]:
    """Addresses of this process's anonymous memory where a huge page fits; empty outside Linux."""
    maps, found = Path("/proc/self/maps"), set()
    for line in maps.read_text().splitlines() if maps.exists() else ():
        ends, rights, _, _, _, *name = line.split()
        if not name and rights.startswith("rw"):
            first, last = (int(end, 16) for end in ends.split("-"))
            found |= set(range(first + -first % HUGE_PAGE, last - HUGE_PAGE + 1, HUGE_PAGE))
    return found


def untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`torch.zeros`, but on a CPU a page takes memory only once it is written.

    A cache of 2048 steps is rarely full. The system fills an anonymous map with zeros page by page, on demand;
    torch writes all zeros at once, and numpy asks for huge pages.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


def keep_freed_memory() -> None:
    """Make this process keep all memory that it frees, if the C library is glibc.

    By default glibc asks the system for every large tensor and returns it after use. The system must then create
    and clear all its pages each time. On two CPU cores this costs phase 1a and the encoder features a quarter of
    their time, and the codec's training a tenth. Source: mallopt(3)
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
