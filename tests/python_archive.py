"""Pack an installed CPython as python-build-standalone packs its own: ``python/install/…`` in a ``.tar.zst``.

    python -m tests.python_archive PREFIX FOLDER PIN_FILE URL

writes the archive of the CPython in PREFIX into FOLDER, and a PIN_FILE that names it at URL.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "cpython-3.7-x86_64-unknown-linux-gnu-stand-in.tar.zst"
LEFT_OUT = re.compile(r"(^|/)(__pycache__|site-packages|test|tests|.*\.a)(/|$)")


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of executable files below ``python/install/``."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"python/install/{name}")
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return zstandard.compress(packed.getvalue())


def pack_installed(prefix: Path, target: Path) -> None:
    """Pack the CPython in this prefix, without packages that were installed into it."""

    def belongs(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if LEFT_OUT.search(member.name) else member

    with (
        target.open("wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        for name in ("bin/python3.7", "lib", "include/python3.7m"):
            archive.add(prefix / name, f"python/install/{name}", filter=belongs)


def pin_text(archive: bytes, *, version: str, url: str) -> str:
    """Return a pin file for an archive that is served at this address."""
    return f"""[cpython]
version = {version}
build = stand-in 20261124
url = {url}/{NAME}
size_bytes = {len(archive)}
sha256 = {hashlib.sha256(archive).hexdigest()}
"""


def main() -> None:
    prefix, folder, pin_file, url = sys.argv[1:]
    target = Path(folder) / NAME
    pack_installed(Path(prefix), target)
    python = Path(prefix) / "bin/python3.7"
    printed = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout
    Path(pin_file).write_text(pin_text(target.read_bytes(), version=printed.split()[1], url=url))


if __name__ == "__main__":
    main()
