from __future__ import annotations

from tests.unit.fixtures.conversion import home, model_dir  # noqa: F401 - fixtures of the tests here
