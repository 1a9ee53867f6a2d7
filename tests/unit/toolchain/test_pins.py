"""All pins are checked before anything is fetched, and an error names the invalid one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from runner.errors import ConfigError
from runner.toolchain.pins import PROJECT_ROOT, load_base_image, load_models_pin
from tests.unit.fixtures.small_project import COMMIT

if TYPE_CHECKING:
    from tests.unit.fixtures.small_project import Project

MOBILE_OPEN_COMMIT = "9d1a6927c6eb30312834dd7c63ad8a307c547b8d"


def test_the_projects_own_pins_are_whole() -> None:
    pin = load_models_pin()
    assert pin.github.commit == MOBILE_OPEN_COMMIT
    assert len((PROJECT_ROOT / pin.github.manifest).read_text().splitlines()) == 540
    assert len((PROJECT_ROOT / pin.pypi.manifest).read_text().splitlines()) == 546
    assert load_base_image().startswith("python:3.7-slim@sha256:")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (f"commit = {COMMIT}\nmanifest = docker/manifests/small.manifest\nurl", "url", "commit is missing"),
        (f"[github]\ncommit = {COMMIT}", "[github]\ncommit = 9d1a692", "commit must be 40 hexadecimal"),
        (f"/{COMMIT}", "/main", "does not contain the commit"),
        ("url = http", "url = ftp", "url must be an http"),
        ("small.manifest\nurl", "other.manifest\nurl", "no manifest docker/manifests/other.manifest"),
        ("manifest = docker/", "manifest = ../docker/", "manifest must be a file of docker/manifests/"),
        ("project = thing", "project = some/thing", "project must be"),
        (".tar.gz", ".whl", "sdist must be the name of a .tar.gz"),
        ("sha256 = 0", "sha256 = x", "sha256 must be 64 hexadecimal"),
        ("lacks =", "lacks = /etc/passwd", "lacks must be paths below research/"),
        ("lacks =", "lack =", "unknown key lack"),
        ("[pypi]", "[pipy]", r"unknown section \[pipy\]"),
        ("[github]\n", "", "no section headers"),
        ("url", "commit = x\nurl", "already exists"),
    ],
)
def test_a_malformed_pin_is_named(project: Project, old: str, new: str, complaint: str) -> None:
    text = project.pin_file.read_text()
    assert old in text
    project.pin_file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=complaint) as raised:
        load_models_pin(project.root)
    assert str(project.pin_file) in raised.value.message


def test_a_missing_section_is_named(project: Project) -> None:
    project.pin_file.write_text(project.pin_file.read_text().partition("[pypi]")[0])
    with pytest.raises(ConfigError, match=re.escape("[pypi]: commit is missing")):
        load_models_pin(project.root)


def test_a_missing_pin_file_is_named(project: Project) -> None:
    project.pin_file.unlink()
    with pytest.raises(ConfigError, match=r"models-research-pin\.txt cannot be read"):
        load_models_pin(project.root)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "no line ARG BASE_IMAGE"),
        ("ARG BASE_IMAGE=", "must be NAME:TAG@sha256"),
        ("ARG BASE_IMAGE=python:3.7-slim", "must be NAME:TAG@sha256"),
        ("ARG BASE_IMAGE=python:3.7-slim@sha256:b53f", "must be NAME:TAG@sha256"),
    ],
)
def test_a_base_image_without_digest_is_refused(project: Project, line: str, complaint: str) -> None:
    dockerfile = project.root / "Dockerfile"
    dockerfile.write_text(re.sub(r"(?m)^ARG BASE_IMAGE=.*$", line, dockerfile.read_text()))
    with pytest.raises(ConfigError, match=complaint) as raised:
        load_base_image(project.root)
    assert str(dockerfile) in raised.value.message


def test_a_missing_dockerfile_is_named(project: Project) -> None:
    (project.root / "Dockerfile").unlink()
    with pytest.raises(ConfigError, match="Dockerfile cannot be read"):
        load_base_image(project.root)
