"""Compute the digests of files: sha256, MD5, git blob id."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from hashlib import _Hash
    from pathlib import Path

CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FileDigests:
    r"""Digests of one file, in lower-case hex; ``git_blob`` is sha1 of ``blob <size>\0`` and the bytes."""

    sha256: str
    md5: str
    git_blob: str
    size_bytes: int


def digest_file(path: Path) -> FileDigests:
    """Read a file once and return all its digests."""
    with path.open("rb") as stream:
        return _digest(iter(lambda: stream.read(CHUNK_BYTES), b""), path.stat().st_size)


def digest_bytes(content: bytes) -> FileDigests:
    """Return all digests of a file's bytes."""
    return _digest((content,), len(content))


def new_hash(name: str, size_bytes: int) -> _Hash:
    """Return a new hash for a file of this size; ``name`` is git_blob, or an algorithm of hashlib."""
    if name == "git_blob":
        return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
    return hashlib.new(name, usedforsecurity=False)


def _digest(chunks: Iterable[bytes], size_bytes: int) -> FileDigests:
    sha256, md5, git_blob = (new_hash(name, size_bytes) for name in ("sha256", "md5", "git_blob"))
    for chunk in chunks:
        for digest in (sha256, md5, git_blob):
            digest.update(chunk)
    return FileDigests(
        sha256=sha256.hexdigest(), md5=md5.hexdigest(), git_blob=git_blob.hexdigest(), size_bytes=size_bytes
    )


def sha256_of(path: Path) -> str:
    """Return a file's sha256."""
    sha256 = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()


def sha1_of(content: Path | bytes) -> str:
    """Return the sha1 of a file or of bytes."""
    whole = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(whole, usedforsecurity=False).hexdigest()


def files_digest(files: Iterable[Path], root: Path) -> str:
    """Return the sha256 over the names and contents of files; the names are relative to ``root``."""
    overall = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        overall.update(f"{content}  {file.relative_to(root).as_posix()}\n".encode())
    return overall.hexdigest()


def copy_with_sha256(source: Path, target: Path) -> str:
    """Copy a file and return the sha256 of the copied bytes."""
    sha256 = hashlib.sha256()
    with source.open("rb") as stream, target.open("xb") as copy:
        while chunk := stream.read(CHUNK_BYTES):
            sha256.update(chunk)
            copy.write(chunk)
    return sha256.hexdigest()
