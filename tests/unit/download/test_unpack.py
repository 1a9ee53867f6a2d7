"""Untrusted archives: nothing is written outside the target, sizes are limited, faults are reported."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.download.unpack import READS_PER_MEMBER, Bounds, gzip_fault, unpack
from runner.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = Bounds(total_bytes=1 << 20, members=20)


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """Write one member as raw tar blocks without any checks."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + padded(content[: info.size])


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def with_size(header: bytes, field: bytes) -> bytes:
    """Put raw bytes into the size field of a header and make its checksum right."""
    changed = header[:124] + field.ljust(12, b"\0") + header[136:148] + b" " * 8 + header[156:512]
    checksum = b"%06o\0 " % sum(changed)
    return changed[:148] + checksum + changed[156:] + header[512:]


def refused(archive_content: bytes, tmp_path: Path) -> str:
    """Unpack and return the error message; check that nothing was written outside the target."""
    archive = tmp_path / "sent" / "model.tar"
    archive.parent.mkdir()
    archive.write_bytes(archive_content)
    into = tmp_path / "target" / "inner"
    into.mkdir(parents=True)
    with pytest.raises(IntegrityError) as problem:
        unpack(archive, into, SMALL)
    assert not OUTSIDE.exists()
    assert list((tmp_path / "target").iterdir()) == [into]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sent", "target"]
    return problem.value.message


OUTSIDE = Path(tempfile.gettempdir(), "planted-by-a-test-of-unpack")
END = bytes(1024)


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["tar.gz", "tar"])
def test_a_good_archive_is_unpacked(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    folder = member("./model/", kind=tarfile.DIRTYPE)
    archive.write_bytes(compress(folder + member("model/fp32/a", b"content" * 999) + END))
    into = tmp_path / "into"
    into.mkdir()
    unpack(archive, into)
    assert (into / "model" / "fp32" / "a").read_bytes() == b"content" * 999
    assert [path.name for path in into.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member("../outside"), "has a path with .."),
        (member("model/../../outside"), "has a path with .."),
        (member(str(OUTSIDE)), "has an absolute path"),
        (member("//outside"), "has an absolute path"),
        (member("model/link", kind=tarfile.SYMTYPE, link="/etc"), "is a link"),
        (member("model/link", kind=tarfile.LNKTYPE, link="../../outside"), "is a link"),
        (member("model/device", kind=tarfile.CHRTYPE), "is a device or a pipe"),
        (member("model/device", kind=tarfile.BLKTYPE), "is a device or a pipe"),
        (member("model/pipe", kind=tarfile.FIFOTYPE), "is a device or a pipe"),
        (member("model/thing", kind=b"Z"), "is not a regular file"),
        (member("model/\udcff\udcfe"), "unknown encoding"),
        (member("model/\x1b[2J"), "control characters"),
        (member("model/" + "long" * 100), "name that is too long"),
        (member("model/" * 300 + "a"), "name that is too long"),
        (member(""), "has no name"),
    ],
)
def test_what_no_model_holds_is_refused(bad: bytes, reason: str, tmp_path: Path) -> None:
    message = refused(member("model/good") + bad + END, tmp_path)
    assert "rejected as a whole" in message
    assert reason in message


def test_a_file_behind_a_link_is_not_reached(tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    link = member("model", kind=tarfile.SYMTYPE, link=str(tmp_path / "sent"))
    (tmp_path / "sent").rmdir()
    assert "is a link" in refused(link + member("model/planted") + END, tmp_path)


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a/b", "a"), ("a", "a/b")], ids=["same", "dot", "folder", "file"]
)
def test_a_name_that_comes_twice_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    assert "twice" in refused(b"".join(member(name) for name in names) + END, tmp_path)


def test_a_bomb_stops_at_the_bound(tmp_path: Path) -> None:
    bomb = gzip.compress(member("model/zeros", bytes(50 << 20)) + END)
    assert len(bomb) < 100_000
    assert "more than 1.0 MB unpacked" in refused(bomb, tmp_path)


def test_a_bomb_of_gzip_members_stops_at_the_bound(tmp_path: Path) -> None:
    one = gzip.compress(member("model/zeros", bytes(900_000)))
    assert "too large" in refused(one * 1000, tmp_path)


def test_a_declared_size_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    declared = with_size(member("model/huge"), b"77777777777")
    assert "too large" in refused(declared + END, tmp_path)


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    negative = with_size(member("model/negative"), b"\xff" * 12)
    assert "has a negative size" in refused(negative + END, tmp_path)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("size", [b"77777777777", b"\xff" * 12], ids=["huge", "negative"])
def test_a_header_of_impossible_size_is_refused(kind: bytes, size: bytes, tmp_path: Path) -> None:
    header = tarfile.TarInfo("header")
    header.type = kind
    header.size = 1
    block = with_size(header.tobuf(tarfile.GNU_FORMAT), size)
    assert "damaged" in (said := refused(member("a") + block + END, tmp_path)) or "malicious" in said


def test_a_chain_of_headers_ends(tmp_path: Path) -> None:
    header = tarfile.TarInfo("header")
    header.type = b"L"
    header.size = 4
    chain = (header.tobuf(tarfile.GNU_FORMAT) + padded(b"name")) * 1000
    assert "tar archive" in refused(gzip.compress(chain + END, mtime=0), tmp_path)


def test_an_endless_sparse_map_ends(tmp_path: Path) -> None:
    header = tarfile.TarInfo("sparse")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1  # "more of the map follows", and each block of the map says so again
    more = bytearray(512)
    more[504] = 1
    first = with_size(bytes(block), b"0")
    archive = tmp_path / "sparse.tar"
    archive.write_bytes(first + bytes(more) * (READS_PER_MEMBER + 1) + END)
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(IntegrityError, match="malicious header"):
        unpack(archive, into)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    many = b"".join(member(f"model/{number}", b"") for number in range(21))
    assert "more than 20 members" in refused(many + END, tmp_path)


@pytest.mark.parametrize("cut", [1, 10, 300])
def test_cut_off_gzip_is_named(cut: int, tmp_path: Path) -> None:
    whole = gzip.compress(member("model/a", bytes(range(256)) * 40) + END)
    archive = tmp_path / "cut.tar.gz"
    archive.write_bytes(whole[:-cut])
    assert "a gzip file that is cut off" in str(gzip_fault(archive))
    archive.unlink()
    assert "a gzip file that is cut off" in refused(whole[:-cut], tmp_path)


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(member("model/a", bytes(range(256)) * 40) + END)
    assert "a damaged gzip file" in refused(whole[:-5] + b"\0" + whole[-4:], tmp_path)


def test_a_whole_gzip_has_no_fault(tmp_path: Path) -> None:
    archive = tmp_path / "whole.tar.gz"
    archive.write_bytes(gzip.compress(member("model/a") + END))
    assert gzip_fault(archive) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            gzip.compress(b"<!doctype html><title>Quota exceeded</title>", mtime=0),
            "an HTML page, not a tar: Quota exceed",
        ),
        (b"<!doctype html><title>Quota exceeded</title>", "an HTML page instead of a .tar.gz"),
        (b"", "nothing (0 bytes) instead of"),
        (b"PK\x03\x04 and so on", "a zip archive instead of"),
        (member("model/a", bytes(9000))[:4000], "cut off in the middle of model/a"),
        (member("model/a") + b"damage" * 200, "damaged header"),
    ],
)
def test_what_is_no_archive_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in refused(content, tmp_path)


def valid_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("model/fp32/a", "model/" + "ü" * 90):
            info = tarfile.TarInfo(name)
            info.size = 700
            info.mtime = 0.5
            tar.addfile(info, io.BytesIO(bytes(700)))
    return buffer.getvalue()[:8192]


VALID = valid_archive()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6), st.integers(0, 9000)
)
def test_any_damage_ends_inside_and_in_bounds(changes: list[tuple[int, int]], end: int) -> None:
    content = bytearray(VALID)
    for position, value in changes:
        content[position] = value
    # A wrong checksum would end it at once: make the first header's right again.
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * 32 + sum(content[156:512]))
    with tempfile.TemporaryDirectory() as folder:
        archive, into = Path(folder) / "a.tar", Path(folder) / "into"
        archive.write_bytes(bytes(content[:end]))
        into.mkdir()
        with contextlib.suppress(IntegrityError):
            unpack(archive, into, SMALL)
        assert sorted(path.name for path in Path(folder).iterdir()) == ["a.tar", "into"]
        assert all(not path.is_symlink() for path in into.rglob("*"))
