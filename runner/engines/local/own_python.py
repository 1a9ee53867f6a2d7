"""Install the pinned CPython 3.7 into the cache, for machines that have none.

The archive comes from the pinned address, or from the mirror or file in RUNNER_PYTHON_ARCHIVE, and must have
the sha256 in ``cpython-pin.txt``. uv checks the sha256 and unpacks the archive into the cache.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from runner import console
from runner.download.address import local_path
from runner.download.file_kind import Content, first_words, read_head, recognise
from runner.download.progress import megabytes
from runner.engines.local.build import run_build_command
from runner.errors import BuildError, IntegrityError, UsageError
from runner.host.cache_dir import cache_dir
from runner.host.digests import sha256_of
from runner.host.whole_folder import find_whole_folder, make_whole_folder
from runner.toolchain.models_source import why_unreachable

if TYPE_CHECKING:
    from pathlib import Path

    from runner.errors import RunnerError
    from runner.toolchain.pins import PythonPin

ARCHIVE_VARIABLE: Final = "RUNNER_PYTHON_ARCHIVE"
DOWNLOAD_VARIABLE: Final = "RUNNER_PYTHON_DOWNLOAD"
ALLOWED_DOWNLOADS: Final = ("auto", "never")
ARCHIVES: Final = (Content.ZSTD, Content.GZIP)
NO_RETRIES: Final = {"UV_HTTP_RETRIES": "0"}
"""uv reads a local file here, so a retry is useless."""
WAYS_OUT: Final = (
    f"name a mirror or a local file ({ARCHIVE_VARIABLE}=URL|FILE), install a CPython 3.7 yourself "
    "(`pyenv install 3.7.17`, `conda create --name py37 python=3.7`), or use Docker"
)


def find_own_python(pin: PythonPin) -> Path | None:
    """Return the executable of the pinned CPython if it is in the cache, else None."""
    folder = find_whole_folder(_home(pin))
    return None if folder is None else _executable(pin, folder)


def why_not_installable(pin: PythonPin, *, is_allowed: bool) -> str | None:
    """Return why the pinned CPython cannot be installed here, or None; checks that the archive is reachable.

    Raises:
        UsageError: a variable has an invalid value, or names a file that does not exist.
    """
    refusal = why_refused(is_allowed=is_allowed)
    source = archive_source(pin)
    if refusal is not None or local_path(source) is not None:
        return refusal
    reason = why_unreachable(source, is_404_an_answer=False)
    return None if reason is None else f"{source} cannot be reached: {reason}"


def why_refused(*, is_allowed: bool) -> str | None:
    """Return why the user or the system forbids installing a CPython, or None; uses no network.

    Raises:
        UsageError: RUNNER_PYTHON_DOWNLOAD has an invalid value.
    """
    setting = os.environ.get(DOWNLOAD_VARIABLE) or "auto"
    if setting not in ALLOWED_DOWNLOADS:
        raise UsageError(
            f"{DOWNLOAD_VARIABLE}={setting}: invalid value", tip=f"use one of {', '.join(ALLOWED_DOWNLOADS)}"
        )
    if not is_allowed:
        return "installing one is switched off (--no-python-download)"
    if setting == "never":
        return f"installing one is switched off ({DOWNLOAD_VARIABLE}=never)"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return (
            f"the toolchain only runs on Linux on x86-64, but this is {sys.platform} on {platform.machine()}"
        )
    if platform.libc_ver()[0] != "glibc":
        return "the toolchain needs glibc, but this system has another C library, such as musl"
    return None


def archive_source(pin: PythonPin) -> str:
    """Return the URL or path of the archive."""
    return os.environ.get(ARCHIVE_VARIABLE) or pin.url


def install_python(pin: PythonPin) -> Path:
    """Install the pinned CPython into the cache if it is not there yet, and return its executable.

    If two runs do this at the same time, one installs it and the other waits.

    Raises:
        DownloadError: the archive is not available.
        IntegrityError: the archive is not the pinned one.
        BuildError: the archive could not be unpacked.
        UsageError: RUNNER_PYTHON_ARCHIVE names a file that does not exist, or the cache is not writable.
    """
    source = archive_source(pin)
    folder = make_whole_folder(
        _home(pin),
        partial(_install, pin, source),
        facts={"version": pin.version, "build": pin.build, "sha256": pin.sha256},
        find=lambda: find_whole_folder(_home(pin)),
        step=partial(
            console.step, f"install CPython {pin.version} ({megabytes(pin.size_bytes)}) from {_shown(source)}"
        ),
    )
    return _executable(pin, folder)


def _executable(pin: PythonPin, folder: Path) -> Path:
    return folder / _uv_name(pin) / "bin/python3.7"


def _uv_name(pin: PythonPin) -> str:
    """Return uv's name for this interpreter: its key in uv's list of downloads, and its folder name."""
    return f"cpython-{pin.version}-linux-x86_64-gnu"


def _home(pin: PythonPin) -> Path:
    return cache_dir() / "pythons" / pin.sha256[:16]


def _shown(source: str) -> str:
    from runner.download.http import shown_url

    return source if local_path(source) is not None else shown_url(source)


def _install(pin: PythonPin, source: str, folder: Path) -> None:
    """Install into an empty folder; check the file type and size first, for a better error than uv's."""
    local = local_path(source)
    archive = folder / pin.archive_name  # uv needs the suffix of the file name
    if local is not None:
        _verify_content(local, pin)
        archive.symlink_to(local.resolve())
    else:
        _download(source, archive, pin)
    _unpack(pin, archive, folder)
    archive.unlink()


def _verify_content(path: Path, pin: PythonPin) -> None:
    head = read_head(path) if path.is_file() else b""
    content = recognise(head)
    if content not in ARCHIVES:
        quote = f"; it begins: {first_words(head)}" if head else ""
        raise IntegrityError(
            f"{path} is not the archive of CPython {pin.version} but {content.value}{quote}", tip=WAYS_OUT
        )
    fault = _fault(pin, path)
    if fault is not None:
        raise IntegrityError(f"{path} is {fault}", tip=WAYS_OUT)


def _fault(pin: PythonPin, path: Path) -> str | None:
    """Return what is wrong with the size of an archive, or None; uv checks the sha256 later."""
    size_bytes = path.stat().st_size
    if size_bytes == pin.size_bytes:
        return None
    return f"not the pinned archive of CPython {pin.version}: {size_bytes} bytes instead of {pin.size_bytes}"


def _download(url: str, archive: Path, pin: PythonPin) -> None:
    """Download to a folder that is kept after a failure, so that the next run can resume."""
    from runner.download.http import download

    kept = archive.parent.parent / pin.archive_name
    download(url, kept, expected=ARCHIVES, fault=partial(_fault, pin), ways_out=WAYS_OUT)
    kept.replace(archive)


def _unpack(pin: PythonPin, archive: Path, folder: Path) -> None:
    from uv import find_uv_bin

    metadata = folder / "downloads.json"
    metadata.write_text(json.dumps(_uv_metadata(pin, archive)), encoding="utf-8")
    try:
        run_build_command(
            *(find_uv_bin(), "python", "install", pin.version, "--no-bin", "--no-config", "--no-cache"),
            *("--install-dir", folder, "--python-downloads-json-url", metadata),
            environment={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), **NO_RETRIES},
        )
    except (IntegrityError, BuildError) as problem:
        raise _not_installed(pin, archive, problem) from problem
    metadata.unlink()


def _not_installed(pin: PythonPin, archive: Path, problem: RunnerError) -> RunnerError:
    """Return the error to raise after uv failed: an IntegrityError if the archive is not the pinned one.

    uv can fail on a damaged archive before it checks the sha256, so the sha256 is computed here.
    """
    name, sha256 = archive.resolve(), sha256_of(archive)
    if sha256 != pin.sha256:
        message = (
            f"{name} is not the pinned archive of CPython {pin.version}: its sha256 is {sha256} instead of "
        )
        return IntegrityError(message + pin.sha256, tip=WAYS_OUT, last_lines=problem.last_lines)
    return BuildError(
        f"CPython {pin.version} could not be installed from {name}: {problem.last_lines[-1].strip()}",
        tip=WAYS_OUT,
        last_lines=problem.last_lines,
    )


def _uv_metadata(pin: PythonPin, archive: Path) -> dict[str, object]:
    """Describe the archive in the format of uv's list of downloads (uv-python/download-metadata.json)."""
    major, minor, patch = map(int, pin.version.split("."))
    return {
        _uv_name(pin): {
            "name": "cpython",
            "arch": {"family": "x86_64", "variant": None},
            "os": "linux",
            "libc": "gnu",
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": archive.as_uri(),
            "sha256": pin.sha256,
            "variant": None,
            "build": pin.build.rpartition(" ")[2],
        }
    }
