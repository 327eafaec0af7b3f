"""``python -m visp`` is the command line."""

import sys

from visp.cli import main

if __name__ == "__main__":
    sys.exit(main())
