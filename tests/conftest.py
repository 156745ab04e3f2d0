"""Makes the modules beside the tests importable, and the extension invisible where a test asks for that."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
if os.environ.get("LRFAST_TEST_WITHOUT_EXTENSION"):
    sys.modules["lrfast._core"] = None
