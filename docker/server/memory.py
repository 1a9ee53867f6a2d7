"""Read memory use from the kernel: size per process group, peak size, number of OOM kills."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Collection, Sequence

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)


def memory_mib_by_group(groups: Collection[int]) -> dict[int, float]:
    """Return the memory of each process group in MiB; shared pages are counted proportionally (PSS)."""
    members: dict[int, list[int]] = {group: [] for group in groups}
    for name in os.listdir("/proc"):  # noqa: PTH208 - only names are needed, not a Path object for each
        if name.isdigit():
            with contextlib.suppress(OSError):  # the process has ended
                members.get(os.getpgid(int(name)), []).append(int(name))
    return {group: _memory_mib(pids) for group, pids in members.items()}


def _memory_mib(pids: Sequence[int]) -> float:
    """Return the total memory of these processes in MiB.

    A single process is measured by its resident size (RSS), which is a hundred times faster to read. Several
    processes are measured by PSS, which divides each shared page among them: toco forks, and its parent and
    child process share most of their pages.
    """
    total_mib = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            if len(pids) == 1:
                total_mib += int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * PAGE_MIB
            else:
                shares = re.search(
                    r"^Pss:\s*(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text("ascii"), re.M
                )
                total_mib += int(shares.group(1)) / 1024 if shares else 0.0
    return total_mib


def peak_mib_of_this_process() -> float:
    """Return the peak resident size of this process in MiB."""
    return int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text("utf-8"))[0]) / 1024


def count_oom_kills() -> int:
    """Return how many processes our cgroup's memory limit made the kernel kill; 0 if unknown."""
    for path in _oom_counters():
        try:
            found = re.search(r"^oom_kill (\d+)$", path.read_text("ascii"), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found.group(1))
    return 0


def _oom_counters() -> list[Path]:
    """List the files that may contain the OOM kill count, for cgroup v1 and v2, in a container or not."""
    root = Path("/sys/fs/cgroup")
    paths = [root / "memory.events", root / "memory" / "memory.oom_control"]
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return paths
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers:
            paths.insert(0, root / own.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            paths.insert(0, root / "memory" / own.lstrip("/") / "memory.oom_control")
    return paths
