"""Unpack an untrusted .tar or .tar.gz safely.

Only regular files and folders are unpacked, only inside the target folder, and only within size limits. Links
and devices are rejected, because model archives do not contain any.

First the gzip layer is decompressed completely into a file of limited size; this also verifies the gzip
checksum. Then the tar archive is read from that file. So a header with a false size cannot make the program
decompress without limit.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from runner.download.file_kind import HEAD_BYTES, Content, first_words, read_head, recognise
from runner.download.progress import megabytes
from runner.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES: Final = 1 << 20
READS_PER_MEMBER: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Size limits for archives; the published archive has about 20 members."""

    total_bytes: int = 2 << 30
    members: int = 2000
    name_bytes: int = 1000
    part_of_name_bytes: int = 200


DEFAULT_BOUNDS: Final = Bounds()


def unpack(archive: Path, into: Path, bounds: Bounds = DEFAULT_BOUNDS) -> None:
    """Unpack an archive into the empty folder ``into``; on failure the caller must delete that folder.

    Raises:
        IntegrityError: the file is truncated, damaged, too large, not an archive, or has unexpected members.
    """
    kind = recognise(read_head(archive))
    plain = into / ".unpacking.tar" if kind is Content.GZIP else archive
    try:
        if kind is Content.GZIP:
            _decompress(archive, plain, bounds)
        elif kind is not Content.TAR:
            _refuse(f"{kind.value} instead of a .tar.gz or .tar archive: {first_words(read_head(archive))}")
        _unpack_tar(plain, into, bounds)
    except _FaultError as fault:
        raise IntegrityError(
            f"{archive} is {fault}", tip="get the archive again, or from another source"
        ) from fault
    finally:
        if plain is not archive:
            plain.unlink(missing_ok=True)


def gzip_fault(archive: Path, bounds: Bounds = DEFAULT_BOUNDS) -> str | None:
    """Read a gzip file to its end; return what is wrong with it, or None if it is a complete .tar.gz."""
    try:
        for _ in _gunzipped(archive, bounds):
            pass
    except _FaultError as fault:
        return str(fault)
    return None


class _FaultError(Exception):
    """An archive is invalid; the message completes the sentence "FILE is …"."""


def _refuse(what_it_is: str) -> None:
    raise _FaultError(what_it_is)


# The gzip layer.


def _decompress(archive: Path, plain: Path, bounds: Bounds) -> None:
    with plain.open("xb") as output:
        for chunk in _gunzipped(archive, bounds):
            output.write(chunk)


def _gunzipped(archive: Path, bounds: Bounds) -> Iterator[bytes]:
    size = 0
    try:
        with gzip.open(archive) as source:
            while chunk := source.read(CHUNK_BYTES):
                if size == 0 and recognise(chunk) is not Content.TAR:
                    head = chunk[:HEAD_BYTES]
                    _refuse(f"gzip data of {recognise(head).value}, not a tar: {first_words(head)}")
                size += len(chunk)
                _check_total(size, bounds)
                yield chunk
    except EOFError:
        _refuse(f"a gzip file that is cut off after {megabytes(archive.stat().st_size)}")
    except (gzip.BadGzipFile, zlib.error) as problem:
        _refuse(f"a damaged gzip file: {problem}")


def _check_total(size: int, bounds: Bounds) -> None:
    if size > bounds.total_bytes:
        _refuse(f"too large for a model: more than {megabytes(bounds.total_bytes)} unpacked")


# The tar inside.


class _TarFile(io.FileIO):
    """A file that rejects reads caused by a malicious header: too large, negative or too many."""

    reads_left = READS_PER_MEMBER

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if size is None or not 0 <= size <= CHUNK_BYTES or self.reads_left < 0:
            _refuse("a tar archive with a malicious header")
            return b""
        return super().read(size) or b""


def _unpack_tar(plain: Path, into: Path, bounds: Bounds) -> None:
    try:
        with _TarFile(plain) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            _unpack_members(file, tar, into, bounds)
            # tarfile treats an unreadable header as the end of the archive. The real end is a block of zeros
            # or the end of the file.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                _refuse("a tar archive with a damaged header")
    # tarfile does not catch these errors when it parses numbers and nested headers.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as problem:
        _refuse(f"a damaged tar archive: {problem}")


def _unpack_members(file: _TarFile, tar: tarfile.TarFile, into: Path, bounds: Bounds) -> None:
    total = 0
    for count, member in enumerate(tar, start=1):
        if count > bounds.members:
            _refuse(f"an archive with more than {bounds.members} members; a model archive has fewer")
        # Check before tarfile reads the next header: a negative size would cause an endless loop there.
        _check_member(member, bounds)
        total += member.size
        _check_total(total, bounds)
        try:
            _unpack_member(file, member, into / member.name)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            _refuse(f"an archive that contains {member.name!r} twice, or both as a file and as a folder")
        file.reads_left = READS_PER_MEMBER


def _check_member(member: tarfile.TarInfo, bounds: Bounds) -> None:
    """Reject a member that is not a regular file or folder or would be written outside the target."""
    path = PurePosixPath(member.name)
    encoded = member.name.encode("utf-8", "surrogateescape")
    parts_bytes = [len(part.encode("utf-8", "surrogateescape")) for part in path.parts]
    reasons = {
        "is a link": member.issym() or member.islnk(),
        "is a device or a pipe": member.isdev(),
        "is not a regular file": not (member.isreg() or member.isdir()) or member.issparse(),
        "has a negative size": member.size < 0,
        "has an absolute path": path.is_absolute(),
        "has a path with ..": ".." in path.parts,
        "has a name with control characters or in an unknown encoding": not member.name.isprintable(),
        "has no name": not member.name,
        "has a name that is too long": len(encoded) > bounds.name_bytes
        or max(parts_bytes, default=0) > bounds.part_of_name_bytes,
    }
    for reason, applies in reasons.items():
        if applies:
            _refuse(f"rejected as a whole: its member {member.name[:200]!r} {reason}")


def _unpack_member(file: _TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file.seek(member.offset_data)
    left = member.size
    # We created all folders here, so they contain no links; mode "x" follows no link and replaces no file.
    with path.open("xb") as output:
        while left > 0:
            chunk = file.read(min(left, CHUNK_BYTES))
            if not chunk:
                _refuse(f"cut off in the middle of {member.name}")
            output.write(chunk)
            left -= len(chunk)
