"""``python -m lrfast`` is the command ``lrfast``."""

import sys

from .cli import main

sys.exit(main())
