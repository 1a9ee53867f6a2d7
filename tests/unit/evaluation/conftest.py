from __future__ import annotations

from tests.unit.fixtures.conversion import (  # noqa: F401 - fixtures of the tests here
    convert,
    delivered,
    home,
    model_dir,
    tiny_recipe,
    toolchain,
)
