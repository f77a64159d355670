"""The allocator that keeps what was freed."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its mallopt")
def test_memory_that_is_freed_is_not_asked_for_again():
    """In a process of its own, which the setting is for: a large tensor's pages are made at first, not each time.

    The second time they may be made too: what else was allocated meanwhile can stand in the way of the first place.
    """
    code = """
import resource, torch
from omni_lite.fast.memory import keep_freed_memory

def pages_made():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(*(pages_made() for _ in range(5)))
keep_freed_memory()
print(*(pages_made() for _ in range(5)))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    asked, kept = ([int(pages) for pages in line.split()] for line in run.stdout.splitlines())
    assert kept[-1] < min(asked) / 10
