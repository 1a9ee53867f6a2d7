"""Plans: plain data that names everything, and a key for all that goes in."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner.convert.model_facts import ModelFacts
from runner.deliver.plan import Asked, Plan, make_plan, program_digest
from runner.errors import ConfigError, UsageError
from runner.host import mounts
from runner.host.digests import sha256_of
from runner.toolchain.pins import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.recipes.recipe import Recipe

    MakePlan = Callable[..., Plan]


@pytest.fixture
def asked(tiny_recipe: Recipe, model_dir: Path, tmp_path: Path) -> Asked:
    return Asked(
        recipe=tiny_recipe,
        variants=("fp32",),
        model_dir=model_dir,
        out_dir=tmp_path / "out",
        settings=tiny_recipe.settings,
        speedups=("late-imports",),
        toolchains=("one", "other"),
    )


def planned(asked: Asked, **changes: Any) -> Plan:  # noqa: ANN401 - fields of Asked
    def read_facts(config: Path) -> ModelFacts:
        pytest.fail(f"the recipe states the facts, and the toolchain was asked for {config}")

    return make_plan(replace(asked, **changes), sha256_of=sha256_of, read_facts=read_facts)


def key(plan: Plan, toolchain: str = "one") -> str:
    return plan.keys["fp32"][toolchain][0]


def test_a_request_and_its_plan_can_be_pickled(asked: Asked) -> None:
    plan = planned(asked)
    assert pickle.loads(pickle.dumps((asked, plan))) == (asked, plan)


def test_making_a_plan_writes_nothing(asked: Asked, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    planned(asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_commands_name_folders_by_placeholders_only(asked: Asked, tmp_path: Path) -> None:
    (conversion,) = planned(asked).conversions
    words = [word for command in conversion.commands.all for word in command]
    assert not [word for word in words if str(tmp_path) in word]
    assert "--input_file=${TFLITE_MODEL_DIR}/fp32/tflite_graph.pb" in words


def test_what_a_recipe_does_not_state_is_read_from_the_config(asked: Asked, model_dir: Path) -> None:
    asked_for = []

    def read_facts(config: Path) -> ModelFacts:
        asked_for.append(config)
        return ModelFacts(is_quantized=False, input_shape=(1, 96, 96, 3))

    silent = replace(asked, recipe=replace(asked.recipe, input_shape=None))
    (conversion,) = make_plan(silent, sha256_of=sha256_of, read_facts=read_facts).conversions
    assert asked_for == [model_dir / "fp32" / "pipeline.config"]
    assert "--input_shapes=1,96,96,3" in conversion.commands.toco


def test_an_output_directory_in_the_model_directory_is_refused_and_not_made(
    asked: Asked, model_dir: Path
) -> None:
    with pytest.raises(UsageError, match="overlap"):
        planned(asked, out_dir=model_dir / "out")
    assert not (model_dir / "out").exists()


def test_an_output_directory_of_the_system_is_refused_and_not_made(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "SYSTEM_FOLDERS", (tmp_path / "system",))
    with pytest.raises(UsageError, match="system/out cannot be mounted"):
        planned(asked, out_dir=tmp_path / "system" / "out")
    assert not (tmp_path / "system").exists()


def test_a_checkpoint_that_does_not_fit_is_refused(asked: Asked, tiny_recipe: Recipe) -> None:
    table = tiny_recipe.variants["fp32"].tensor_table
    table.write_text(table.read_text() + "one_more\tfloat32\t3\t00000000\n")
    with pytest.raises(ConfigError, match="one_more"):
        planned(asked)


# --- the key ----------------------------------------------------------------------------------------------


def test_the_same_bytes_elsewhere_have_the_same_key(asked: Asked, model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "there")
    assert key(planned(asked)) == key(planned(asked, model_dir=tmp_path / "there"))


def test_other_bytes_have_another_key(asked: Asked, model_dir: Path) -> None:
    before = key(planned(asked))
    with (model_dir / "fp32" / "pipeline.config").open("a") as config:
        config.write("# another config\n")
    assert key(planned(asked)) != before


def test_another_toolchain_or_other_speedups_have_another_key(asked: Asked) -> None:
    plan = planned(asked)
    assert len({key(plan), key(plan, "other"), key(planned(asked, speedups=()))}) == 3


def test_a_result_that_was_checked_is_as_good_as_one_that_was_not(asked: Asked) -> None:
    unchecked = planned(asked, settings=replace(asked.settings, check=False)).keys["fp32"]["one"]
    assert unchecked[0] != unchecked[1] == key(planned(asked))


def test_paths_that_the_provenance_names_are_part_of_the_key(asked: Asked, tmp_path: Path) -> None:
    plans = (
        planned(asked),
        planned(asked, with_paths=True),
        planned(asked, with_paths=True, out_dir=tmp_path / "x"),
    )
    assert len({key(plan) for plan in plans}) == 3


def test_another_host_program_has_another_digest(tmp_path: Path) -> None:
    source = tmp_path / "runner" / "identity.py"
    source.parent.mkdir()
    source.write_text("one")
    before = program_digest(tmp_path)
    source.with_suffix(".pyc").write_text("compiled")
    installed_with = tmp_path / BUNDLE / "docker" / "toco"
    installed_with.parent.mkdir(parents=True)
    installed_with.write_text("of the toolchain")
    assert program_digest(tmp_path) == before
    source.write_text("two")
    assert program_digest(tmp_path) != before
