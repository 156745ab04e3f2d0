"""The step beside NumPy and the memory's speed: the same as ``lrfast bench``, with the same options."""

import sys

from lrfast.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
