"""omni_lite: a small, teachable, working Mini-Omni (arXiv 2408.16725).

    from omni_lite.load import load_assistant
    assistant = load_assistant()

Importing it before torch makes torch's threads sleep while they wait, see `threads.py`.
"""

from omni_lite.threads import let_threads_sleep

__version__ = "0.2.0"

let_threads_sleep()
