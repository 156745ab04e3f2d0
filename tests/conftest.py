"""Makes the modules beside the tests importable, and the extension invisible where a test asks for that."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
if os.environ.get("LRFAST_TEST_WITHOUT_EXTENSION"):
    sys.modules["lrfast._engine._core"] = None


@pytest.fixture
def forced_isa(isa):
    """For tests that are parametrised over isa: they run on it."""
    import lrfast

    with lrfast.use_isa(isa):
        yield
