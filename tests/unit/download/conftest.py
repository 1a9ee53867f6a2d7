from __future__ import annotations

from tests.unit.fixtures.checkpoint import (  # noqa: F401 - fixtures of the tests here
    model_archive,
    model_dir,
    target,
    tiny_recipe,
)
