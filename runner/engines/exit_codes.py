"""What an exit code says when a signal ended TensorFlow."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_MEANINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        132: "illegal instruction: TensorFlow 1.15 needs a processor with AVX",
        134: "TensorFlow aborted; on an emulated processor this is how it says that AVX is missing",
        137: "killed, most likely for memory",
        139: "segmentation fault; on an emulated processor this is how it says that AVX is missing",
    }
)
"""By code, 128 + n for signal n."""


NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""What a shell ends with for a command that it could not run, or that is not there."""


def code_of(returncode: int) -> int:
    """Return the exit code a shell would show: 128 + n where ``subprocess`` says -n."""
    return returncode if returncode >= 0 else 128 - returncode
