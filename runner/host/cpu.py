"""Processor features that TensorFlow 1.15 needs."""

from __future__ import annotations

import re
from typing import Final

AVX_REMEDY: Final = (
    "without AVX, TensorFlow ends with code 132 (illegal instruction) or, on an emulator, 134; use an x86-64 "
    "machine with AVX (most machines since 2011; `docker context` can select one), or an emulator that "
    "supports AVX (QEMU since 7.2, Rosetta since macOS 15)"
)


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Return the flags of the first processor in the text of /proc/cpuinfo."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()
