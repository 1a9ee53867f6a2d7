"""Get the pinned tensorflow/models tree from one of three sources and verify every file.

    models_research.py --source github|pypi|local --pin models-research-pin.txt --output DIR
                       [--path PATH] [--protoc-python PYTHON]

Writes research/object_detection, research/slim and models-research.json, which records what was verified, to
DIR. Only files listed in the pinned manifest are used, and each must have the git blob id given there. DIR is
created only when everything has succeeded. Needs only Python 3.7; uses the usual proxy variables,
SSL_CERT_FILE and PIP_INDEX_URL. Exit codes: 2 invalid arguments, 4 protoc failed, 7 the tree is not available
or is not the pinned one.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import contextlib
import fnmatch
import gzip
import hashlib
import html.parser
import http.client
import io
import json
import os
import pathlib
import posixpath
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from typing import AbstractSet, Any, Callable, Dict, Iterator, NoReturn, Tuple

# Pairs of a file's path, as in the manifest (research/…), and its content.
Files = Iterator[Tuple[str, bytes]]
Manifest = Dict[str, str]

NETWORK_TIMEOUT_S = 60
PROGRESS_STEP_BYTES = 16 << 20
# Far above the largest file of the manifests; stops a malicious archive from filling the memory.
LARGEST_FILE_BYTES = 16 << 20


class RefusalError(Exception):
    """The tree could not be obtained; holds the reason and the exit code of the program."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def refuse(message: str, exit_code: int = 7) -> NoReturn:
    """Raise a `RefusalError`; `main` prints its message.

    Raises:
        RefusalError: always.
    """
    raise RefusalError(message, exit_code)


def main() -> None:
    """Parse the command line and obtain the tree; print an error on one line and exit with its code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", choices=["github", "pypi", "local"], required=True)
    parser.add_argument(
        "--path", type=pathlib.Path, help="local: a checkout of tensorflow/models or a tarball"
    )
    parser.add_argument("--pin", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument(
        "--protoc-python", help="a Python with grpcio-tools; without it no .proto is compiled"
    )
    options = parser.parse_args()
    try:
        obtain_tree(options.source, options.path, options.pin, options.output, options.protoc_python)
    except RefusalError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(refusal.exit_code)


def obtain_tree(
    kind: str,
    path: pathlib.Path | None,
    pin_file: pathlib.Path,
    output: pathlib.Path,
    protoc_python: str | None,
) -> None:
    """Write the verified tree and its record to a new folder.

    Raises:
        RefusalError: the arguments are invalid, the source is not available, or a file is not the pinned one.
    """
    if output.exists():
        refuse(f"{output} already exists: choose another --output", exit_code=2)
    pin = read_pin(pin_file, "pypi" if kind == "pypi" else "github")
    manifest_file = pin_file.parent / pin["manifest"]
    manifest = read_manifest(manifest_file)
    generated = generated_modules(manifest) if kind == "pypi" else frozenset()
    files = open_source(kind, path, pin, manifest.keys() | generated)

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".models-", dir=str(output.parent)) as scratch:
        tree = pathlib.Path(scratch) / "tree"
        taken = write_proven_files(files, manifest, manifest_file.name, tree)
        lacking = declared_lacking(manifest.keys() | generated, taken, pin.get("lacks", "").split())
        if protoc_python is not None:
            compile_protos(protoc_python, tree / "research", taken)
        record = {
            "source": kind,
            "commit": pin["commit"],
            "manifest": manifest_file.name,
            "manifest_sha256": hashlib.sha256(manifest_file.read_bytes()).hexdigest(),
            "proven_files": len(taken - generated),
            "vouched_for_by_the_sdist": sorted(generated),
            "lacking": lacking,
        }
        (tree / "models-research.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        tree.rename(output)
    print(f"tensorflow/models {pin['commit']}: {record['proven_files']} files verified")


# --- the pin: which files are expected --------------------------------------------------------------------


def read_pin(pin_file: pathlib.Path, section: str) -> dict[str, str]:
    """Return one section of the pin file. The host has checked every value (runner/toolchain/pins.py)."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(pin_file.read_text(encoding="utf-8"), source=str(pin_file))
        return dict(parser[section])
    except (OSError, KeyError, configparser.Error) as problem:
        refuse(f"{pin_file}: no usable section [{section}]: {problem!r}", exit_code=2)


def read_manifest(manifest_file: pathlib.Path) -> Manifest:
    """Return the git blob ids of all files, keyed by path in the tree."""
    manifest = {}
    try:
        lines = manifest_file.read_text(encoding="utf-8").splitlines()
    except OSError as problem:
        refuse(f"the manifest {manifest_file} cannot be read: {problem}", exit_code=2)
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"([0-9a-f]{40})  (research/\S+)", line)
        if match is None or posixpath.normpath(match.group(2)) != match.group(2):
            refuse(f"{manifest_file}, line {number}: not 'BLOB-ID  research/PATH': {line}", exit_code=2)
        manifest[match.group(2)] = match.group(1)
    return manifest


def generated_modules(names: AbstractSet[str]) -> AbstractSet[str]:
    """Return the names of the modules that protoc generates from the .proto files among ``names``."""
    return {name[: -len(".proto")] + "_pb2.py" for name in names if name.endswith(".proto")}


# --- the sources: each yields the wanted files that it has ------------------------------------------------


def open_source(kind: str, path: pathlib.Path | None, pin: dict[str, str], wanted: AbstractSet[str]) -> Files:
    """Return an iterator over the wanted files of a source; they are read lazily."""
    if kind == "local":
        if path is None:
            refuse("the local source needs --path", exit_code=2)
        return folder_files(path, wanted) if path.is_dir() else tarball_files(path, wanted)
    if path is not None:
        refuse(f"--path is for the local source, not for {kind}", exit_code=2)
    return github_files(pin["url"], wanted) if kind == "github" else sdist_files(pin, wanted)


def github_files(url: str, wanted: AbstractSet[str]) -> Files:
    """Stream the tarball of the commit and keep only the wanted files."""
    with translated_errors(url), open_url(url) as stream, gzip.GzipFile(
        fileobj=Progress(stream, url)
    ) as plain:
        with tarfile.open(fileobj=plain, mode="r|") as archive:
            yield from archive_files(archive, path_from_research, wanted)
        while plain.read(1 << 20):  # gzip verifies its checksum at the end; this detects truncation
            pass


def sdist_files(pin: dict[str, str], wanted: AbstractSet[str]) -> Files:
    """Download the source distribution from the package index. Its setup.py is never run."""
    url = find_sdist(
        os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple", pin["project"], pin["sdist"]
    )
    with translated_errors(url):
        with open_url(url) as stream:
            content = stream.read()
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != pin["sha256"]:
            refuse(f"{without_password(url)}: the sha256 is {sha256}, but {pin['sha256']} is pinned")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            yield from archive_files(archive, path_under_research, wanted)


def folder_files(folder: pathlib.Path, wanted: AbstractSet[str]) -> Files:
    """Read from a checkout of tensorflow/models, or any folder that contains its research/."""
    with translated_errors(str(folder)):
        for name in sorted(wanted):
            path = folder / name
            if path.is_file():
                yield name, path.read_bytes()


def tarball_files(tarball: pathlib.Path, wanted: AbstractSet[str]) -> Files:
    """Read from a tarball of tensorflow/models or of its research/, compressed or not."""
    with translated_errors(str(tarball)), tarfile.open(str(tarball)) as archive:
        yield from archive_files(archive, path_from_research, wanted)


def archive_files(
    archive: tarfile.TarFile, path_in_tree: Callable[[str], str | None], wanted: AbstractSet[str]
) -> Files:
    """Read the wanted members of an open archive, in archive order."""
    for member in archive:
        name = path_in_tree(member.name)
        if name is None or name not in wanted:
            continue
        content = archive.extractfile(member) if member.isreg() else None
        if content is None or member.size > LARGEST_FILE_BYTES:
            refuse(f"{name}: in the archive this is not a regular file, or too large ({member.size} bytes)")
        yield name, content.read()


def path_from_research(member_name: str) -> str | None:
    """Drop the path before research/, such as models-<commit>/ in models-<commit>/research/slim/nets/…."""
    match = re.search(r"(?:^|/)(research/.*)", member_name)
    return match.group(1) if match else None


def path_under_research(member_name: str) -> str:
    """Replace the sdist's top folder by research/."""
    return "research/" + member_name.partition("/")[2]


# --- the network: urllib, with errors that name the address -----------------------------------------------


@contextlib.contextmanager
def translated_errors(origin: str) -> Iterator[None]:
    """Turn a read error into a refusal that names the URL, folder or file."""
    shown = without_password(origin)
    try:
        yield
    except urllib.error.HTTPError as problem:
        problem.close()
        refuse(f"{shown}: the server answered {problem.code} {problem.reason}")
    except urllib.error.URLError as problem:
        refuse(f"{shown}: cannot be reached: {problem.reason}")
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        tarfile.TarError,
        http.client.HTTPException,
    ) as problem:
        refuse(f"{shown}: reading it failed: {problem} ({type(problem).__name__})")


def open_url(url: str, accept: str = "*/*") -> Any:  # noqa: ANN401 - typeshed calls the response Any as well
    """Open a URL; a user and password in it (as for private indexes) are sent as a header."""
    request = urllib.request.Request(without_password(url), headers={"Accept": accept})
    user, has_user, _host = urllib.parse.urlsplit(url).netloc.rpartition("@")
    if has_user:
        token = base64.b64encode(urllib.parse.unquote(user).encode("utf-8")).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT_S)


def without_password(url: str) -> str:
    """Return the URL without user and password, for logs."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


class Progress:
    """A wrapper around a download stream that prints how much has been read."""

    def __init__(self, stream: Any, url: str) -> None:  # noqa: ANN401 - see open_url
        self.stream = stream
        self.url = url
        self.size_bytes = 0

    def read(self, size_bytes: int = -1) -> bytes:
        """Read from the stream."""
        block: bytes = self.stream.read(size_bytes)
        before, self.size_bytes = self.size_bytes, self.size_bytes + len(block)
        if before // PROGRESS_STEP_BYTES != self.size_bytes // PROGRESS_STEP_BYTES:
            print(f"{self.url}: {self.size_bytes >> 20} MiB", flush=True)
        return block


# --- the package index: PEP 691 (JSON), or PEP 503 (HTML) for mirrors without JSON ------------------------


def find_sdist(index_url: str, project: str, file_name: str) -> str:
    """Return the URL of a file in the package index."""
    page_url = f"{index_url.rstrip('/')}/{project}/"
    with translated_errors(page_url):
        with open_url(page_url, "application/vnd.pypi.simple.v1+json, text/html;q=0.1") as page:
            is_json = page.headers.get_content_type().endswith("json")
            text = page.read().decode("utf-8")
        links = [file["url"] for file in json.loads(text)["files"]] if is_json else links_of_page(text)
    for link in links:
        url = urllib.parse.urljoin(page_url, urllib.parse.urldefrag(link).url)
        if posixpath.basename(urllib.parse.urlsplit(url).path) == file_name:
            return url
    refuse(f"{without_password(page_url)}: the index does not offer {file_name}")


def links_of_page(page: str) -> list[str]:
    """Return the targets of all links of an HTML page."""
    links: list[str] = []

    class LinkParser(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "a":
                links.extend(value for name, value in attrs if name == "href" and value)

    LinkParser().feed(page)
    return links


# --- verification -----------------------------------------------------------------------------------------


def git_blob_id(content: bytes) -> str:
    """Return the git blob id of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def write_proven_files(files: Files, manifest: Manifest, manifest_name: str, tree: pathlib.Path) -> set[str]:
    """Verify the files, write them below ``tree`` and return their names; stop at the first mismatch."""
    taken = set()
    for name, content in files:
        blob_id = git_blob_id(content)
        if manifest.get(name, blob_id) != blob_id:
            pinned = f"{manifest_name} has {manifest[name]}"
            refuse(f"{name}: not the pinned file: its git blob id is {blob_id}, {pinned}")
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        taken.add(name)
    return taken


def declared_lacking(expected: AbstractSet[str], taken: AbstractSet[str], declared: list[str]) -> list[str]:
    """Return the files that the source lacks; refuse if the pin file does not declare all of them."""
    missing = sorted(expected - taken)
    undeclared = [
        name for name in missing if not any(fnmatch.fnmatchcase(name, pattern) for pattern in declared)
    ]
    if undeclared:
        named = ", ".join(undeclared[:5]) + (", …" if len(undeclared) > 5 else "")
        refuse(f"{len(undeclared)} of {len(expected)} files are missing: {named}")
    return missing


def compile_protos(protoc_python: str, research: pathlib.Path, names: AbstractSet[str]) -> None:
    """Compile the .proto files to the _pb2.py modules that the detection API imports."""
    protos = sorted(posixpath.relpath(name, "research") for name in names if name.endswith(".proto"))
    if not protos:
        return
    command = [protoc_python, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", *protos]
    finished = subprocess.run(command, cwd=str(research), check=False)
    if finished.returncode != 0:
        refuse(f"protoc ended with exit code {finished.returncode}", exit_code=4)


if __name__ == "__main__":
    main()
