"""omni_lite: a small, teachable, working Mini-Omni (arXiv 2408.16725)."""
