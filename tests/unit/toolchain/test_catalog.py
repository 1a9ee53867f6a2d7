"""The shipped toolchains, and the rules for a toolchain's folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runner.errors import ConfigError, UsageError
from runner.recipes.recipe import DEFAULT_TOOLCHAIN, load_recipe, recipe_names
from runner.toolchain.catalog import (
    CATALOG,
    TOCO_ONLY,
    load_toolchain,
    other_toolchains,
    toco_only_digest,
    toco_only_files,
    toolchain_names,
)
from runner.toolchain.digest import toolchain_digest
from runner.toolchain.files import packaged_files
from runner.toolchain.image_plan import candidate_plans
from runner.toolchain.pins import MODELS_PIN_FILE, PROJECT_ROOT, load_base_image

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the toolchains' files."""
    for name in (CATALOG, "docker"):
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", "models-research-pin.txt", "cpython-pin.txt"):
        shutil.copy(PROJECT_ROOT / name, tmp_path / name)
    return tmp_path


GIVEN = """title = "TensorFlow 9.9.9"
tensorflow = "9.9.9"
min_runtime_version = "9.0.0"
lock = "toolchains/tf9.9/requirements.lock"
"""


def add_third(root: Path, text: str | None = None) -> None:
    """Add a toolchain as docs/architecture.md says: a folder, no Python."""
    folder = root / CATALOG / "tf9.9"
    folder.mkdir()
    (folder / "requirements.lock").write_text("tensorflow==9.9.9\n")
    (folder / "toolchain.toml").write_text(text or GIVEN)


def test_only_the_default_toolchain_has_a_models_tree() -> None:
    assert load_toolchain().has_models_tree
    assert other_toolchains()
    assert not any(spec.has_models_tree for spec in other_toolchains())


def test_every_recipe_names_a_toolchain_that_ships() -> None:
    variants = [it for name in recipe_names() for it in load_recipe(name).variants.values()]
    assert {variant.toolchain for variant in variants} == {"tf1.15", "tf2.3"}
    assert {load_toolchain(variant.toolchain).name for variant in variants} <= set(toolchain_names())


def test_a_third_toolchain_is_a_folder(checkout: Path) -> None:
    add_third(checkout)
    assert toolchain_names(checkout) == (DEFAULT_TOOLCHAIN, "tf2.3", "tf9.9")
    spec = load_toolchain("tf9.9", checkout)
    assert (spec.name, spec.tensorflow, spec.same_bytes_as) == ("tf9.9", "9.9.9", ())
    assert checkout / "toolchains/tf9.9/requirements.lock" in toco_only_files(spec, checkout)


def test_a_toolchain_can_name_its_base_image(checkout: Path) -> None:
    base = f"example.org/python:3.7-slim@sha256:{'0' * 64}"
    add_third(checkout, f'{GIVEN}base_image = "{base}"\n')
    (third,) = candidate_plans(toolchain="tf9.9", root=checkout)
    (second,) = candidate_plans(toolchain="tf2.3", root=checkout)
    assert (third.base_image, second.base_image) == (base, load_base_image(checkout))
    assert third.build_args["BASE_IMAGE"] == base
    (chosen,) = candidate_plans(toolchain="tf9.9", base_image="mine", root=checkout)
    assert chosen.base_image == "mine"


def test_the_default_toolchain_names_the_pin_of_its_models_tree() -> None:
    assert load_toolchain().models_pin == MODELS_PIN_FILE


def test_other_toolchains_leave_the_default_one_as_it_is(checkout: Path) -> None:
    before = toolchain_digest("c" * 40, checkout), [plan.tag for plan in candidate_plans(root=checkout)]
    add_third(checkout)
    (checkout / TOCO_ONLY / "toco").write_text("changed\n")
    after = toolchain_digest("c" * 40, checkout), [plan.tag for plan in candidate_plans(root=checkout)]
    assert after == before


@pytest.mark.parametrize(
    "name",
    [f"{TOCO_ONLY}/toco", "docker/bin/toco", "docker/server/server.py", f"{CATALOG}/tf2.3/toolchain.toml"],
)
def test_what_another_toolchain_is_made_of_changes_its_digest(checkout: Path, name: str) -> None:
    spec = load_toolchain("tf2.3")
    before = toco_only_digest(spec, checkout), candidate_plans(toolchain="tf2.3", root=checkout)[0].tag
    (checkout / name).write_text("changed\n")
    after = toco_only_digest(spec, checkout), candidate_plans(toolchain="tf2.3", root=checkout)[0].tag
    assert not set(before) & set(after)


def test_the_export_scripts_are_no_part_of_another_toolchain() -> None:
    names = [path.relative_to(PROJECT_ROOT).as_posix() for path in toco_only_files(load_toolchain("tf2.3"))]
    assert not [name for name in names if "steps" in name or "manifests" in name or "models" in name]


def test_an_installed_program_has_all_toolchains() -> None:
    names = {str(file) for file in packaged_files()}
    assert {f"{CATALOG}/{name}/toolchain.toml" for name in toolchain_names()} <= names
    assert {f"{TOCO_ONLY}/{name}" for name in ("Dockerfile", "toco", "smoke-test.sh")} <= names


def test_an_unknown_toolchain_is_a_usage_error_that_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no toolchain 'tf1\.16'") as caught:
        load_toolchain("tf1.16")
    assert "tf2.3" in str(caught.value.tip)


@pytest.mark.parametrize(
    "text",
    [
        "title = 1\n",
        "not toml",
        'title = "x"\ntensorflow = "1"\nmin_runtime_version = "1"\nlock = "none"\n',
        f'{GIVEN}base_image = "python:3.7-slim"\n',
        f'{GIVEN}models_pin = "none"\n',
        f'{GIVEN}models_pin = "models-research-pin.txt"\n',
    ],
)
def test_an_invalid_toolchain_file_is_a_config_error_that_names_it(checkout: Path, text: str) -> None:
    add_third(checkout, text)
    with pytest.raises(ConfigError, match=r"tf9\.9/toolchain\.toml"):
        load_toolchain("tf9.9", checkout)
