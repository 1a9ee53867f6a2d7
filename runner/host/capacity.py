"""How many cores and how much memory this process may use, within its cgroup and CPU set, if any."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may run on, as limited by Slurm, Kubernetes or `taskset`."""
    granted = len(os.sched_getaffinity(0))
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        granted = min(granted, max(1, int(quota) // int(period)))
    return granted


def available_memory_mib() -> int:
    """Return how much memory is free now, in MiB, within the cgroup's limit if it has one."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) >> 10
    limit, used = _read(CGROUP / "memory.max"), _read(CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        available = min(available, (int(limit) - int(used)) >> 20)
    return max(0, available)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:  # another kernel, or no cgroup v2
        return ""
