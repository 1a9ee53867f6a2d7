"""Cores and memory that this process may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.host import capacity

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(capacity, "CGROUP", tmp_path)
    return tmp_path


def test_without_a_cgroup_the_cpu_set_counts(cgroup: Path) -> None:
    del cgroup
    assert capacity.usable_cores() == len(os.sched_getaffinity(0))
    assert (
        0 < capacity.available_memory_mib() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    )


@pytest.mark.parametrize(
    ("quota", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None)]
)
def test_cpu_quota_of_a_cgroup_counts(cgroup: Path, quota: str, cores: int | None) -> None:
    (cgroup / "cpu.max").write_text(f"{quota}\n")
    assert capacity.usable_cores() == (cores or len(os.sched_getaffinity(0)))


def test_memory_limit_of_a_cgroup_counts(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(f"{300 << 20}\n")
    (cgroup / "memory.current").write_text(f"{100 << 20}\n")
    assert capacity.available_memory_mib() == 200
    (cgroup / "memory.max").write_text("max\n")
    assert capacity.available_memory_mib() > 200
