"""How a file was made, according to its provenance, an option or its structure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner.errors import IntegrityError
from runner.evidence.check.compare import ConcatSetting, SettingSource
from runner.evidence.check.files import find_pairs
from runner.evidence.provenance.write import write_provenance
from runner.recipes.recipe import load_recipe
from tests.unit.fixtures.conversion import (  # noqa: F401 - fixtures of the tests here
    convert,
    delivered,
    home,
    model_dir,
    tiny_recipe,
    toolchain,
)

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Toolchain
    from runner.recipes.recipe import Recipe
    from tests.unit.fixtures.conversion import Convert

RECIPE = load_recipe()


def stated(path: Path, recipe: Recipe = RECIPE, concat: bool | None = None) -> ConcatSetting | None:
    (pair,) = find_pairs(path, recipe, concat=concat)
    return pair.concat


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ((), True),
        (("--change_concat_input_ranges",), True),
        (("--change_concat_input_ranges=true",), True),
        (("--change_concat_input_ranges=FALSE",), False),
    ],
)
def test_the_provenance_states_the_flag_of_toco(
    convert: Convert,  # noqa: F811
    toolchain: Toolchain,  # noqa: F811
    flags: tuple[str, ...],
    *,
    value: bool,
) -> None:
    conversion = convert("one")
    commands = conversion.plan.commands
    asked = replace(conversion.plan, commands=replace(commands, toco=(*commands.toco, *flags)))
    write_provenance(replace(conversion, plan=asked), toolchain)
    expected = ConcatSetting(change_concat_input_ranges=value, source=SettingSource.PROVENANCE)
    assert stated(conversion.final) == expected
    assert stated(conversion.folder) == expected


def test_an_option_overrules_the_provenance(delivered: Path) -> None:  # noqa: F811
    assert stated(delivered, concat=False) == ConcatSetting(
        change_concat_input_ranges=False, source=SettingSource.OPTION
    )


def test_without_a_provenance_nothing_is_stated(delivered: Path) -> None:  # noqa: F811
    (delivered / "provenance.json").unlink()
    (pair,) = find_pairs(delivered, RECIPE)
    assert (pair.concat, pair.is_of_recipe) == (None, False)


def test_a_provenance_without_a_toco_command_is_an_integrity_error(delivered: Path) -> None:  # noqa: F811
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    definition = statement["predicate"]["buildDefinition"]
    definition["internalParameters"]["steps"].pop()
    path.write_text(json.dumps(statement), "utf-8")
    with pytest.raises(IntegrityError, match="records no toco command"):
        find_pairs(delivered, RECIPE)


@pytest.mark.parametrize("is_stand_in", [True, False])
def test_the_provenance_says_that_weights_are_random(
    convert: Convert,  # noqa: F811
    toolchain: Toolchain,  # noqa: F811
    *,
    is_stand_in: bool,
) -> None:
    conversion = convert("one")
    if is_stand_in:
        readme = conversion.plan.checkpoint.prefix.with_name("README.txt")
        readme.write_text("A STAND-IN CHECKPOINT: ITS DETECTIONS MEAN NOTHING\n")
    write_provenance(conversion, toolchain)
    (pair,) = find_pairs(conversion.folder, RECIPE)
    assert pair.has_random_weights is is_stand_in


def test_the_recipe_is_known_from_the_provenance(delivered: Path) -> None:  # noqa: F811
    (pair,) = find_pairs(delivered, RECIPE)
    assert pair.is_of_recipe
    (other,) = find_pairs(delivered, replace(RECIPE, name="another"))
    assert not other.is_of_recipe


def test_another_recipe_of_the_same_name_is_another(delivered: Path) -> None:  # noqa: F811
    path = delivered / "provenance.json"
    statement = json.loads(path.read_text("utf-8"))
    statement["predicate"]["buildDefinition"]["externalParameters"]["recipeSha256"] = "0" * 64
    path.write_text(json.dumps(statement), "utf-8")
    (pair,) = find_pairs(delivered, RECIPE)
    assert not pair.is_of_recipe


def test_mean_and_std_are_those_that_toco_was_given(
    convert: Convert,  # noqa: F811
    toolchain: Toolchain,  # noqa: F811
) -> None:
    conversion = convert("one")
    commands = conversion.plan.commands
    toco = (*commands.toco, "--mean_values=3", "--std_values=4.5")
    write_provenance(
        replace(conversion, plan=replace(conversion.plan, commands=replace(commands, toco=toco))), toolchain
    )
    (pair,) = find_pairs(conversion.folder, RECIPE)
    assert (pair.variant.mean_value, pair.variant.std_value) == (3, 4.5)
