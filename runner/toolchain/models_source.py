"""Choose the source of the tensorflow/models tree, before anything is built.

``auto`` uses GitHub. If GitHub is not reachable, it prints the reason and uses PyPI. If a downloaded file is
wrong, the build fails; ``auto`` does not try PyPI then.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from runner import console
from runner.errors import BuildError, DiskFullError, IntegrityError, UsageError
from runner.host import disk
from runner.host.scratch import scratch_folder
from runner.toolchain.pins import MODELS_PIN_FILE, PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.toolchain.pins import ModelsPin

SourceKind = Literal["github", "pypi", "local"]

AUTO: Final = "auto"
GITHUB_TIMEOUT_S: Final = 8.0
SCRIPT: Final = Path("docker/models_research.py")


@dataclass(frozen=True, kw_only=True)
class ModelsSource:
    """A source of tensorflow/models; ``path`` is the checkout or tarball if it is local."""

    kind: SourceKind
    path: Path | None = None

    def commit(self, pin: ModelsPin) -> str:
        """Return the commit of tensorflow/models in this source."""
        return pin.pypi.commit if self.kind == "pypi" else pin.github.commit


GITHUB: Final = ModelsSource(kind="github")
PYPI: Final = ModelsSource(kind="pypi")


def tree_text(kind: SourceKind | None, commit: str | None) -> str:
    """Return which tensorflow/models a built toolchain contains, as text."""
    return "TOCO only" if commit is None else f"tensorflow/models {commit[:7]} from {kind}"


def candidate_sources(models: str, pin: ModelsPin, *, commit: str | None = None) -> tuple[ModelsSource, ...]:
    """Return the sources that ``--models`` allows, the preferred one first; uses no network.

    ``commit`` is the commit that the models tree must have; None allows every pinned commit.

    Raises:
        UsageError: ``models`` is not the name of a source and not an existing path, or no source that it
            allows has this commit.
    """
    sources = _sources_named(models)
    fitting = tuple(it for it in sources if commit in (None, it.commit(pin)))
    if not fitting:
        raise UsageError(
            f"commit {str(commit)[:7]} of tensorflow/models is needed, and --models {models} has "
            f"{' or '.join(it.commit(pin)[:7] for it in sources)}",
            tip=f"leave --models out; {MODELS_PIN_FILE} has the pinned commits",
        )
    return fitting


def _sources_named(models: str) -> tuple[ModelsSource, ...]:
    by_name = {AUTO: (GITHUB, PYPI), "github": (GITHUB,), "pypi": (PYPI,)}
    if models in by_name:
        return by_name[models]
    path = Path(models).expanduser()
    if not path.exists():
        raise UsageError(
            f"--models {models}: no such file or folder",
            tip="use auto, github, pypi, or the path of a checkout or tarball",
        )
    return (ModelsSource(kind="local", path=path.resolve()),)


def choose_source(models: str, pin: ModelsPin, *, commit: str | None = None) -> ModelsSource:
    """Choose the source; ``auto`` sends one request to GitHub to check whether it is reachable.

    Raises:
        UsageError: as `candidate_sources`.
    """
    sources = candidate_sources(models, pin, commit=commit)
    if sources == (GITHUB, PYPI):
        seen = why_unreachable(pin.github.url)
        if seen is not None:
            console.warn(
                f"GitHub cannot be reached ({seen}): using tensorflow/models from PyPI, commit "
                f"{pin.pypi.commit[:7]} instead of {pin.github.commit[:7]}; the .tflite is the same, the "
                "inference graph is not"
            )
            return PYPI
    return sources[0]


def why_unreachable(url: str, *, is_404_an_answer: bool = True) -> str | None:
    """Return why a server is not reachable, or None if it is.

    A 404 comes from the server itself; 403, 407 and 5xx usually come from a firewall or proxy.
    """
    import httpx

    try:
        status = httpx.head(url, timeout=GITHUB_TIMEOUT_S, follow_redirects=True).status_code
    except (httpx.TransportError, httpx.TooManyRedirects) as problem:
        return str(problem) or type(problem).__name__
    return None if status < 300 or (status == 404 and is_404_an_answer) else f"HTTP status {status}"


@contextlib.contextmanager
def proven_tree(source: Path, root: Path = PROJECT_ROOT) -> Iterator[Path]:
    """Copy the pinned files of a local checkout or tarball to a temporary folder and verify them there.

    Raises:
        IntegrityError: a file is missing or is not the pinned one; the message names it.
        DiskFullError: the disk is too full for the copy.
        BuildError: the copy failed for another reason.
    """
    with scratch_folder() as scratch:
        tree = scratch / "tree"
        options = {"--source": "local", "--path": source, "--pin": root / MODELS_PIN_FILE, "--output": tree}
        flags = [str(word) for flag in options.items() for word in flag]
        finished = subprocess.run(
            [sys.executable, "-I", str(root / SCRIPT), *flags], capture_output=True, text=True, check=False
        )
        if disk.is_reported(finished.stderr):
            raise DiskFullError(
                f"the disk that contains {scratch} is full", tip="free some space, or set TMPDIR"
            )
        if finished.returncode != 0:
            error = IntegrityError if finished.returncode == IntegrityError.exit_code else BuildError
            reason = finished.stderr.strip().removeprefix("error: ")
            raise error(
                f"tensorflow/models at {source}: {reason}",
                tip=f"use a checkout of the commit in {MODELS_PIN_FILE}, or `--models auto`",
            )
        yield tree
