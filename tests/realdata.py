"""The public data beside the project, which only some machines have."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not SHARED.exists(), reason=f"the real data is not at {SHARED}")
