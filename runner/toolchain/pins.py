"""Read and check the pins of the base image, of tensorflow/models and of CPython.

The pins are in the Dockerfile, ``models-research-pin.txt`` and ``cpython-pin.txt``. They are checked
completely before anything is fetched, so that a typo is reported at once and not ten minutes into a build.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runner.errors import ConfigError

PROGRAM_ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder that contains the package ``runner``: a checkout, or ``site-packages``."""
BUNDLE: Final = "runner/_toolchain"
"""Where an installed program stores the toolchain's files; in a checkout they are in the top folder."""
PROJECT_ROOT: Final = PROGRAM_ROOT / BUNDLE if (PROGRAM_ROOT / BUNDLE).is_dir() else PROGRAM_ROOT
"""The folder that contains the Dockerfile, the pins and ``docker/``."""
DOCKERFILE: Final = "Dockerfile"
MODELS_PIN_FILE: Final = "models-research-pin.txt"
PYTHON_PIN_FILE: Final = "cpython-pin.txt"

_COMMIT: Final = (r"[0-9a-f]{40}", "40 hexadecimal digits")
_MANIFEST: Final = (r"docker/manifests/[\w.-]+", "a file of docker/manifests/")
_URL: Final = (r"https?://\S+", "an http or https address")
_PROJECT: Final = (r"[a-z0-9]+(-[a-z0-9]+)*", "the normalized name of a project on PyPI")
_SDIST: Final = (r"[\w.-]+\.tar\.gz", "the name of a .tar.gz")
_SHA256: Final = (r"[0-9a-f]{64}", "64 hexadecimal digits")
_LACKS: Final = (r"(\s*research/[\w./*-]+)*", "paths below research/, one per line")

PINNED_IMAGE: Final = r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}"
"""The pattern of a base image with name, tag and digest."""

_VERSION: Final = (r"3\.7\.\d+", "a version of CPython 3.7")
_WORDS: Final = (r"\S.*", "text")
_SIZE: Final = (r"[1-9]\d*", "a number of bytes")

_Sections = Mapping[str, Mapping[str, tuple[str, str]]]
_PYTHON_SECTIONS: Final[_Sections] = {
    "cpython": {"version": _VERSION, "build": _WORDS, "url": _URL, "size_bytes": _SIZE, "sha256": _SHA256}
}
_MODELS_SECTIONS: Final[_Sections] = {
    "github": {"commit": _COMMIT, "manifest": _MANIFEST, "url": _URL},
    "pypi": {
        "commit": _COMMIT,
        "manifest": _MANIFEST,
        "project": _PROJECT,
        "sdist": _SDIST,
        "sha256": _SHA256,
        "lacks": _LACKS,
    },
}


@dataclass(frozen=True, kw_only=True)
class GithubPin:
    """The commit of tensorflow/models and the URL of its tarball."""

    commit: str
    manifest: str
    url: str


@dataclass(frozen=True, kw_only=True)
class SdistPin:
    """The fallback for networks without GitHub: a source distribution on PyPI and its commit."""

    commit: str
    manifest: str
    project: str
    sdist: str
    sha256: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PythonPin:
    """The archive of the CPython 3.7 that the local engine can install; its root is ``python/install/``."""

    version: str
    build: str
    url: str
    size_bytes: int
    sha256: str

    @property
    def archive_name(self) -> str:
        """The file name in the URL; its suffix determines the archive format."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class ModelsPin:
    """The contents of ``models-research-pin.txt``."""

    github: GithubPin
    pypi: SdistPin


def load_models_pin(root: Path = PROJECT_ROOT) -> ModelsPin:
    """Read ``models-research-pin.txt`` and check all its values.

    Raises:
        ConfigError: the file is missing, is not a pin file, or contains an invalid value.
    """
    path = root / MODELS_PIN_FILE
    github, pypi = _read_sections(path, _MODELS_SECTIONS)
    for name, section in (("github", github), ("pypi", pypi)):
        if not (root / section["manifest"]).is_file():
            raise ConfigError(f"{path}, [{name}]: there is no manifest {section['manifest']}")
    if github["commit"] not in github["url"]:
        raise ConfigError(f"{path}, [github]: the url does not contain the commit {github['commit']}")
    return ModelsPin(
        github=GithubPin(**github),
        pypi=SdistPin(**{**pypi, "lacks": tuple(pypi["lacks"].split())}),  # type: ignore[arg-type] # lacks is split
    )


def load_python_pin(root: Path = PROJECT_ROOT) -> PythonPin:
    """Read ``cpython-pin.txt`` and check all its values.

    Raises:
        ConfigError: the file is missing, is not a pin file, or contains an invalid value.
    """
    (section,) = _read_sections(root / PYTHON_PIN_FILE, _PYTHON_SECTIONS)
    size_bytes = int(section.pop("size_bytes"))
    return PythonPin(**section, size_bytes=size_bytes)


def _read_sections(path: Path, expected: _Sections) -> tuple[dict[str, str], ...]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_read(path), source=str(path))
    except configparser.Error as problem:
        raise ConfigError(f"{path}: {problem.message}") from problem
    unknown = [name for name in parser.sections() if name not in expected]
    if unknown:
        raise ConfigError(f"{path}: unknown section [{unknown[0]}], expected {', '.join(expected)}")
    return tuple(_checked_section(path, parser, name, keys) for name, keys in expected.items())


def _checked_section(
    path: Path, parser: configparser.ConfigParser, name: str, expected: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    section = dict(parser[name]) if parser.has_section(name) else {}
    for key in section.keys() - expected.keys():
        raise ConfigError(f"{path}, [{name}]: unknown key {key}, expected {', '.join(expected)}")
    for key, (pattern, meaning) in expected.items():
        if key not in section:
            raise ConfigError(f"{path}, [{name}]: {key} is missing")
        if not re.fullmatch(pattern, section[key]):
            raise ConfigError(f"{path}, [{name}]: {key} must be {meaning}, not {section[key]!r}")
    return section


def load_base_image(root: Path = PROJECT_ROOT) -> str:
    """Return the base image of the Dockerfile: name, tag and digest.

    Raises:
        ConfigError: the Dockerfile is missing, names no base image, or names it without its digest.
    """
    path = root / DOCKERFILE
    match = re.search(r"^ARG BASE_IMAGE=(\S*)$", _read(path), flags=re.MULTILINE)
    if match is None:
        raise ConfigError(f"{path}: no line ARG BASE_IMAGE=NAME:TAG@sha256:…")
    if not re.fullmatch(PINNED_IMAGE, match.group(1)):
        raise ConfigError(
            f"{path}: BASE_IMAGE must be NAME:TAG@sha256: and 64 hex digits, not {match.group(1)!r}"
        )
    return match.group(1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(
            f"{path} cannot be read: {problem}", tip="it is part of this program: reinstall the program"
        ) from problem
