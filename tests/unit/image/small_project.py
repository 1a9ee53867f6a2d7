"""A project with pins as small as its models tree, and what its loopback servers say."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.servers import Answer, Request

COMMIT = "c" * 40
TREE: Mapping[str, bytes] = {
    "research/object_detection/__init__.py": b"",
    "research/object_detection/exporter.py": b"def export():\n    pass\n",
    "research/slim/nets/mobilenet.py": b"# a net\n",
}
PROTO = "research/object_detection/protos/ssd.proto"
GENERATED = "research/object_detection/protos/ssd_pb2.py"


def blob_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def tarball(files: Mapping[str, bytes], top: str = "models-cccc/") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def sdist(files: Mapping[str, bytes]) -> bytes:
    """Pack as the source distribution does: without research/, below a folder of its own."""
    return tarball({name.removeprefix("research/"): content for name, content in files.items()}, "thing-0.1/")


@dataclass(frozen=True, kw_only=True)
class Project:
    """The files of this project that deal with the pins, with pins of a test's own."""

    root: Path
    pin_file: Path
    manifest: Path

    def pin(self, files: Mapping[str, bytes]) -> None:
        """Write the manifest of these files."""
        lines = [f"{blob_id(content)}  {name}\n" for name, content in sorted(files.items())]
        self.manifest.write_text("".join(lines))

    def point_to(
        self, *, github: str = "http://127.0.0.1:9", sha256: str = "0" * 64, lacks: tuple[str, ...] = ()
    ) -> None:
        """Write the pin file."""
        listed = "".join(f"\n    {pattern}" for pattern in lacks)
        both = f"commit = {COMMIT}\nmanifest = docker/manifests/small.manifest\n"
        self.pin_file.write_text(
            f"[github]\n{both}url = {github}/{COMMIT}\n"
            f"[pypi]\n{both}project = thing\nsdist = thing-0.1.tar.gz\nsha256 = {sha256}\nlacks ={listed}\n"
        )


def reply(content: bytes, content_type: str = "application/gzip") -> Answer:
    """Answer every request with this."""

    def answer(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def reply_status(status: int) -> Answer:
    """Answer every request with this status and nothing else."""

    def answer(request: Request) -> None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer
