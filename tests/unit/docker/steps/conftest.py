"""The parts of the toolchain's steps that need no TensorFlow, loaded as the toolchain loads them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

from tests.locations import DOCKER_DIR

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

STEPS_DIR = DOCKER_DIR / "steps"


@pytest.fixture
def load_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(STEPS_DIR)
    return importlib.import_module
