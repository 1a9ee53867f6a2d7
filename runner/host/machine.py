"""Describe the hardware of this machine, for measurements."""

from __future__ import annotations

import platform
from pathlib import Path

from runner.host.capacity import usable_cores


def describe_machine() -> str:
    """Return the processor, the number of usable cores and the system, without the machine's name."""
    cores = usable_cores()
    return f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}, {platform.system()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # another system
        lines = []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return " and ".join(sorted(names)) or platform.machine()
