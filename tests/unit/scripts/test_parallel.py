"""How many variants run at the same time."""

from __future__ import annotations

import pytest

from runner.scripts.parallel import PEAK_MIB, at_once, machine_memory_mib


@pytest.mark.parametrize(
    ("cores", "memory_mib", "number"),
    [(1, 16000, 1), (2, 16000, 2), (64, 4 * PEAK_MIB, 4), (64, 2 * PEAK_MIB - 1, 1), (2, 0, 1)],
)
def test_neither_cores_nor_memory_are_overloaded(cores: int, memory_mib: int, number: int) -> None:
    assert at_once(cores, memory_mib) == number


def test_this_machine_has_memory_for_one() -> None:
    assert machine_memory_mib() > PEAK_MIB
