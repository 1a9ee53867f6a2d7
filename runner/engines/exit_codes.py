"""Exit codes of toolchain processes and what they mean."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_MEANINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        132: "illegal instruction: TensorFlow 1.15 needs a processor with AVX",
        134: "TensorFlow aborted; on an emulated processor this usually means that AVX is missing",
        137: "killed, most likely out of memory",
        139: "segmentation fault; on an emulated processor this usually means that AVX is missing",
    }
)
"""Explanations of exit codes; 128 + n is signal n."""


NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""A shell's exit codes for a command that cannot be executed or was not found."""


def code_of(returncode: int) -> int:
    """Return the exit code that a shell reports: 128 + n if ``subprocess`` returns -n."""
    return returncode if returncode >= 0 else 128 - returncode
