from __future__ import annotations

from tests.unit.fixtures.conversion import (  # noqa: F401 - fixtures of the tests here
    convert,
    delivered,
    home,
    model_dir,
    own_delivered,
    tiny_recipe,
    toolchain,
)
from tests.unit.fixtures.drawn_set import drawn_set  # noqa: F401 - a fixture of the tests here
from tests.unit.fixtures.photo import photo  # noqa: F401 - a fixture of the tests here
