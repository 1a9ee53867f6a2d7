from __future__ import annotations

from tests.unit.fixtures.small_project import project  # noqa: F401 - a fixture of the tests here
