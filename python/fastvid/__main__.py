"""`python -m fastvid` is the command `fastvid`."""

from __future__ import annotations

import sys

from fastvid.cli import main

if __name__ == "__main__":
    sys.exit(main())
