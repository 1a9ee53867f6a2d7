from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.fixture
def step(load_step: Callable[[str], ModuleType]) -> ModuleType:
    return load_step("graph_diff")


def test_long_values_are_cut_where_they_differ(step: ModuleType) -> None:
    left, right = step.excerpts("x" * 5000 + "left" + "y" * 500, "x" * 5000 + "right")
    assert left == "..." + "x" * 50 + "left" + "y" * 143 + "..."
    assert right == "..." + "x" * 50 + "right"


def test_short_values_are_whole(step: ModuleType) -> None:
    assert step.excerpts("f: 0.5", "f: 0.25") == ["f: 0.5", "f: 0.25"]
