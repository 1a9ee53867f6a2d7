"""The pins: which base image and which tensorflow/models the toolchain is made of.

Each stands in one file, the Dockerfile and ``models-research-pin.txt``. Both are read and checked whole
before anything is fetched, so a slip of the pen is a message here and not a riddle ten minutes into a build.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = "Dockerfile"
MODELS_PIN_FILE: Final = "models-research-pin.txt"

_COMMIT: Final = (r"[0-9a-f]{40}", "40 hexadecimal digits")
_MANIFEST: Final = (r"docker/manifests/[\w.-]+", "a file of docker/manifests/")
_URL: Final = (r"https?://\S+", "an http or https address")
_PROJECT: Final = (r"[a-z0-9]+(-[a-z0-9]+)*", "the normalized name of a project on PyPI")
_SDIST: Final = (r"[\w.-]+\.tar\.gz", "the name of a .tar.gz")
_SHA256: Final = (r"[0-9a-f]{64}", "64 hexadecimal digits")
_LACKS: Final = (r"(\s*research/[\w./*-]+)*", "paths below research/, one on a line")

_SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
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
    """The commit of tensorflow/models, and where its tarball is."""

    commit: str
    manifest: str
    url: str


@dataclass(frozen=True, kw_only=True)
class SdistPin:
    """The stand-in for networks without GitHub: a source distribution on PyPI, and the commit it holds."""

    commit: str
    manifest: str
    project: str
    sdist: str
    sha256: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelsPin:
    """All of ``models-research-pin.txt``."""

    github: GithubPin
    pypi: SdistPin


def load_models_pin(root: Path = PROJECT_ROOT) -> ModelsPin:
    """Read ``models-research-pin.txt`` and check every value of it.

    Raises:
        ConfigError: the file is missing, is no such file, or holds a value that cannot be.
    """
    path = root / MODELS_PIN_FILE
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_read(path), source=str(path))
    except configparser.Error as problem:
        message = f"{path}: {problem.message}"
        raise ConfigError(message) from problem
    unknown = [name for name in parser.sections() if name not in _SECTIONS]
    if unknown:
        message = f"{path}: there is no section [{unknown[0]}], only {', '.join(_SECTIONS)}"
        raise ConfigError(message)
    github, pypi = (_checked_section(path, parser, name) for name in _SECTIONS)
    if github["commit"] not in github["url"]:
        message = f"{path}, [github]: the url does not hold the commit {github['commit']}"
        raise ConfigError(message)
    return ModelsPin(
        github=GithubPin(**github),
        pypi=SdistPin(**{**pypi, "lacks": tuple(pypi["lacks"].split())}),  # type: ignore[arg-type] # lacks is split
    )


def _checked_section(path: Path, parser: configparser.ConfigParser, name: str) -> dict[str, str]:
    expected = _SECTIONS[name]
    section = dict(parser[name]) if parser.has_section(name) else {}
    for key in section.keys() - expected.keys():
        message = f"{path}, [{name}]: {key} is no key of this section ({', '.join(expected)})"
        raise ConfigError(message)
    for key, (pattern, meaning) in expected.items():
        if key not in section:
            message = f"{path}, [{name}]: {key} is missing"
            raise ConfigError(message)
        if not re.fullmatch(pattern, section[key]):
            message = f"{path}, [{name}]: {key} has to be {meaning}, not {section[key]!r}"
            raise ConfigError(message)
    if not (path.parent / section["manifest"]).is_file():
        message = f"{path}, [{name}]: there is no manifest {section['manifest']}"
        raise ConfigError(message)
    return section


def load_base_image(root: Path = PROJECT_ROOT) -> str:
    """Return the base image of the Dockerfile: name, tag and digest.

    Raises:
        ConfigError: the Dockerfile is missing, names none, or names it without its digest.
    """
    path = root / DOCKERFILE
    match = re.search(r"^ARG BASE_IMAGE=(\S*)$", _read(path), flags=re.MULTILINE)
    if match is None:
        message = f"{path}: no line ARG BASE_IMAGE=NAME:TAG@sha256:…"
        raise ConfigError(message)
    if not re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", match.group(1)):
        message = f"{path}: BASE_IMAGE has to be NAME:TAG@sha256: and 64 digits, not {match.group(1)!r}"
        raise ConfigError(message)
    return match.group(1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        message = f"{path} cannot be read: {problem}"
        raise ConfigError(message, tip="run from a checkout of this project; it holds the pins") from problem
