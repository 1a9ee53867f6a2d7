"""List the files that the toolchain is built from.

The list is used for the build context of the image, for the digest of the toolchain and for the wheel. The
wheel contains these files in ``runner/_toolchain`` (tools/package_data.py), together with the other
toolchains. A test compares ``.dockerignore`` with the list.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from runner.toolchain.pins import DOCKERFILE, MODELS_PIN_FILE, PROJECT_ROOT, PYTHON_PIN_FILE

if TYPE_CHECKING:
    from pathlib import Path

LOCAL_MODELS: Final = "docker/models-research-local.tar"
CA_BUNDLE: Final = "docker/ca-certificates.crt"
"""Optional files that only some machines have: a local models tree and a CA bundle for the Dockerfile."""


def toolchain_files(root: Path = PROJECT_ROOT) -> tuple[PurePosixPath, ...]:
    """Return the files, relative to ``root`` and sorted, without the optional files of a single machine."""
    names = (DOCKERFILE, MODELS_PIN_FILE, PYTHON_PIN_FILE)
    paths = [*(root / name for name in names), *(root / "docker").rglob("*")]
    files = (PurePosixPath(path.relative_to(root).as_posix()) for path in paths if path.is_file())
    return tuple(sorted(file for file in files if not _is_left_out(file)))


def packaged_files(root: Path = PROJECT_ROOT) -> tuple[PurePosixPath, ...]:
    """Return the files that the wheel contains: `toolchain_files` and the other toolchains."""
    others = (path for path in sorted((root / "toolchains").rglob("*")) if path.is_file())
    return (*toolchain_files(root), *(PurePosixPath(path.relative_to(root).as_posix()) for path in others))


def _is_left_out(file: PurePosixPath) -> bool:
    return "__pycache__" in file.parts or file.suffix == ".pyc" or str(file) in {LOCAL_MODELS, CA_BUNDLE}
