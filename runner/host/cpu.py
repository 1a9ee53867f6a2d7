"""What TensorFlow 1.15 needs of a processor."""

from __future__ import annotations

import re
from typing import Final

AVX_REMEDY: Final = (
    "TensorFlow ends there with code 132 (illegal instruction) or, emulated, 134: use an x86-64 machine with "
    "AVX (most since 2011; `docker context` can point to one), or an emulator that offers it "
    "(QEMU since 7.2, Rosetta since macOS 15)"
)


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Return the flags that the text of /proc/cpuinfo gives of the first processor."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()
