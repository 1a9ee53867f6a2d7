from __future__ import annotations

from tests.unit.fixtures.detector import (  # noqa: F401 - fixtures of the tests here
    data_dir,
    identity_of,
    kind,
    other_toco,
    runs,
    tiny_recipe,
    uint8_run,
    without_post_processing,
)
