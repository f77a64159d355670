"""`python -m omni_lite`: see `cli.py`."""

import sys

from omni_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
