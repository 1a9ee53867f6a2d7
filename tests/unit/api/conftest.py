from __future__ import annotations

from tests.unit.fixtures.conversion import (  # noqa: F401 - fixtures of the tests here
    home,
    model_dir,
    own_delivered,
    toolchain,
)
