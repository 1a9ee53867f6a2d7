"""Plans are plain data that contain everything, with a key that covers all inputs."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner.convert.model_facts import ModelFacts
from runner.deliver.plan import Plan, PlanRequest, make_plan, program_digest
from runner.errors import ConfigError, UsageError
from runner.host import mounts
from runner.host.digests import sha256_of
from runner.recipes.recipe import Dialect, load_recipe
from runner.toolchain.pins import BUNDLE, PROGRAM_ROOT

FLAT = """
title = "One variant"

[variants.fp32]
inference_type = "QUANTIZED_UINT8"
mean_value = 128
std_value = 128
input_shape = [1, 320, 320, 3]
folder = "fp32"
checkpoint_prefix = "model.ckpt-400000"
"""

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.recipes.recipe import Recipe, Variant

    MakePlan = Callable[..., Plan]


@pytest.fixture
def asked(tiny_recipe: Recipe, model_dir: Path, tmp_path: Path) -> PlanRequest:
    return PlanRequest(
        recipe=tiny_recipe,
        variants=("fp32",),
        model_dir=model_dir,
        out_dir=tmp_path / "out",
        speedups=("late-imports",),
        toolchains=("one", "other"),
    )


def planned(asked: PlanRequest, **changes: Any) -> Plan:  # noqa: ANN401 - fields of PlanRequest
    def read_facts(config: Path, _: Variant) -> ModelFacts:
        pytest.fail(f"the recipe states the facts, and the toolchain was asked for {config}")

    return make_plan(replace(asked, **changes), sha256_of=sha256_of, read_facts=read_facts)


def key(plan: Plan, toolchain: str = "one") -> str:
    return plan.keys["fp32"][toolchain][0]


def test_a_request_and_its_plan_can_be_pickled(asked: PlanRequest) -> None:
    plan = planned(asked)
    assert pickle.loads(pickle.dumps((asked, plan))) == (asked, plan)


def test_making_a_plan_writes_nothing(asked: PlanRequest, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    planned(asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_commands_name_folders_by_placeholders_only(asked: PlanRequest, tmp_path: Path) -> None:
    (conversion,) = planned(asked).conversions
    words = [word for command in conversion.commands.all for word in command]
    assert not [word for word in words if str(tmp_path) in word]
    assert "--input_file=${TFLITE_MODEL_DIR}/fp32/tflite_graph.pb" in words


def test_what_a_recipe_does_not_state_is_read_from_the_config(asked: PlanRequest, model_dir: Path) -> None:
    asked_for = []

    def read_facts(config: Path, _: Variant) -> ModelFacts:
        asked_for.append(config)
        return ModelFacts(is_quantized=False, input_shape=(1, 96, 96, 3))

    silent = replace(asked, recipe=asked.recipe.with_variants(input_shape=None))
    (conversion,) = make_plan(silent, sha256_of=sha256_of, read_facts=read_facts).conversions
    assert asked_for == [model_dir / "fp32" / "pipeline.config"]
    assert "--input_shapes=1,96,96,3" in conversion.commands.toco


def test_the_toolchain_that_converts_is_part_of_the_key(asked: PlanRequest) -> None:
    other = planned(asked, recipe=asked.recipe.with_variants(toolchain="tf2.3"))
    assert key(other) != key(planned(asked))
    assert key(planned(asked, recipe=asked.recipe.with_variants(toolchain="tf1.15"))) == key(planned(asked))


def test_an_unknown_toolchain_is_refused_in_the_plan(asked: PlanRequest) -> None:
    with pytest.raises(UsageError, match="no toolchain 'none'"):
        planned(asked, recipe=asked.recipe.with_variants(toolchain="none"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), ["--change_concat_input_ranges=false"]),
        (("--change_concat_input_ranges=true",), ["--change_concat_input_ranges=true"]),
    ],
)
def test_a_dialect_sets_its_default_where_the_flags_do_not(
    asked: PlanRequest, flags: tuple[str, ...], expected: list[str]
) -> None:
    recipe = asked.recipe.with_variants(dialect=Dialect.TFLITE_CONVERT, toco_flags=flags)
    (conversion,) = planned(asked, recipe=recipe).conversions
    assert [it for it in conversion.commands.toco if "concat" in it] == expected


def test_an_output_directory_in_the_model_directory_is_refused_and_not_made(
    asked: PlanRequest, model_dir: Path
) -> None:
    with pytest.raises(UsageError, match="overlap"):
        planned(asked, out_dir=model_dir / "out")
    assert not (model_dir / "out").exists()


def test_an_output_directory_of_the_system_is_refused_and_not_made(
    asked: PlanRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "SYSTEM_FOLDERS", (tmp_path / "system",))
    with pytest.raises(UsageError, match="system/out cannot be mounted"):
        planned(asked, out_dir=tmp_path / "system" / "out")
    assert not (tmp_path / "system").exists()


def test_a_checkpoint_that_does_not_fit_is_refused(asked: PlanRequest, tiny_recipe: Recipe) -> None:
    table = tiny_recipe.variants["fp32"].tensor_table
    assert table is not None
    table.write_text(table.read_text() + "one_more\tfloat32\t3\t00000000\n")
    with pytest.raises(ConfigError, match="one_more"):
        planned(asked)


# --- the key ----------------------------------------------------------------------------------------------


def test_the_same_bytes_elsewhere_have_the_same_key(
    asked: PlanRequest, model_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_dir, tmp_path / "there")
    assert key(planned(asked)) == key(planned(asked, model_dir=tmp_path / "there"))


def test_other_bytes_have_another_key(asked: PlanRequest, model_dir: Path) -> None:
    before = key(planned(asked))
    with (model_dir / "fp32" / "pipeline.config").open("a") as config:
        config.write("# another config\n")
    assert key(planned(asked)) != before


def test_another_toolchain_or_other_speedups_have_another_key(asked: PlanRequest) -> None:
    plan = planned(asked)
    assert len({key(plan), key(plan, "other"), key(planned(asked, speedups=()))}) == 3


def test_a_result_that_was_checked_is_as_good_as_one_that_was_not(asked: PlanRequest) -> None:
    unchecked = planned(asked, choices={"check": False}).keys["fp32"]["one"]
    assert unchecked[0] != unchecked[1] == key(planned(asked))


def test_paths_that_the_provenance_names_are_part_of_the_key(asked: PlanRequest, tmp_path: Path) -> None:
    plans = (
        planned(asked),
        planned(asked, with_paths=True),
        planned(asked, with_paths=True, out_dir=tmp_path / "x"),
    )
    assert len({key(plan) for plan in plans}) == 3


@pytest.fixture
def two_recipes(tmp_path: Path) -> tuple[Path, Path]:
    """Two recipes in separate folders; both fit the tiny checkpoint."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text(FLAT)
    return tmp_path / "one", tmp_path / "other"


def test_a_changed_recipe_has_another_key_and_the_others_keep_theirs(
    asked: PlanRequest, two_recipes: tuple[Path, Path]
) -> None:
    def keys() -> list[str]:
        load_recipe.cache_clear()
        recipes = (replace(asked, recipe=load_recipe(folder)) for folder in two_recipes)
        return [key(planned(it)) for it in recipes]

    before = keys()
    with (two_recipes[1] / "recipe.toml").open("a") as file:
        file.write("# a comment\n")
    after = keys()
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_recipe_that_ships_is_no_part_of_the_program(tmp_path: Path) -> None:
    shutil.copytree(PROGRAM_ROOT / "runner/recipes", tmp_path / "runner/recipes")
    before = program_digest(tmp_path)
    (tmp_path / "runner/recipes/catalog/new").mkdir()
    (tmp_path / "runner/recipes/catalog/new/recipe.toml").write_text(FLAT)
    assert program_digest(tmp_path) == before
    (tmp_path / "runner/recipes/new.py").write_text("")
    assert program_digest(tmp_path) != before


# --- what a recipe may state ------------------------------------------------------------------------------


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[[str], Recipe]:
    """Read a recipe that has one variant with these keys."""

    def read(keys: str) -> Recipe:
        folder = tmp_path / "of its own"
        folder.mkdir()
        (folder / "recipe.toml").write_text(FLAT + keys)
        return load_recipe(folder)

    return read


def test_a_flat_archive_has_no_folder(
    asked: PlanRequest, recipe_of: Callable[[str], Recipe], model_dir: Path
) -> None:
    recipe = recipe_of("").with_variants(folder="")
    (conversion,) = planned(asked, recipe=recipe, model_dir=model_dir / "fp32").conversions
    assert conversion.checkpoint.config.name == "pipeline.config"
    assert conversion.commands.config[2] == "${TF_MODEL_DIR}/pipeline.config"
    assert "--trained_checkpoint_prefix=${TF_MODEL_DIR}/model.ckpt-400000" in conversion.commands.export
    assert "no table to compare them with" in conversion.checkpoint.verdict.sentence


def test_flags_and_edits_of_a_recipe_reach_the_commands(
    asked: PlanRequest, recipe_of: Callable[[str], Recipe]
) -> None:
    recipe = recipe_of(
        """export_flags = ["--detections_per_class=7"]
toco_flags = ["--change_concat_input_ranges=false"]
config_remove = ["model.ssd.foo"]
config_set = { "model.ssd.num_classes" = 3, "eval_config.use_moving_averages" = false }
"""
    )
    (conversion,) = planned(asked, recipe=recipe).conversions
    config, export, toco = conversion.commands.all
    assert config[-6:] == (
        *("--set", "model.ssd.num_classes=3", "--set", "eval_config.use_moving_averages=false"),
        *("--remove", "model.ssd.foo"),
    )
    assert export[-1] == "--detections_per_class=7"
    assert toco[-1] == "--change_concat_input_ranges=false"


def test_a_refused_variant_is_refused_with_its_reason(
    asked: PlanRequest, recipe_of: Callable[[str], Recipe]
) -> None:
    recipe = recipe_of('refused = "its checkpoint has no quantization ranges"\n')
    with pytest.raises(ConfigError, match="cannot be converted: its checkpoint has no quantization ranges"):
        planned(asked, recipe=recipe)


class TestFromAFrozenGraph:
    @pytest.fixture
    def from_graph(
        self, asked: PlanRequest, recipe_of: Callable[[str], Recipe], model_dir: Path
    ) -> PlanRequest:
        (model_dir / "fp32" / "tflite_graph.pb").write_bytes(b"a graph")
        return replace(asked, recipe=recipe_of('starts_from = "tflite_graph.pb"\n'))

    def test_nothing_is_exported(self, from_graph: PlanRequest) -> None:
        plan = planned(from_graph)
        (conversion,) = plan.conversions
        assert [command[0].rpartition("/")[2] for command in conversion.commands.all] == [
            "pipeline_config.py",
            "toco",
        ]
        assert [file.name for file in conversion.checkpoint.files] == [
            "fp32/pipeline.config",
            "fp32/tflite_graph.pb",
        ]
        assert "fp32/export.log" not in plan.products(conversion)

    def test_the_graph_is_part_of_the_key(self, from_graph: PlanRequest, model_dir: Path) -> None:
        before = key(planned(from_graph))
        (model_dir / "fp32" / "tflite_graph.pb").write_bytes(b"another graph")
        assert key(planned(from_graph)) != before

    def test_a_setting_that_is_fixed_in_the_graph_cannot_be_chosen(self, from_graph: PlanRequest) -> None:
        with pytest.raises(UsageError, match=r"--score-threshold cannot be chosen .* tflite_graph"):
            planned(from_graph, choices={"score_threshold": 0.5})
        planned(from_graph, choices={"check": False})

    def test_a_missing_graph_is_named(self, from_graph: PlanRequest, model_dir: Path) -> None:
        (model_dir / "fp32" / "tflite_graph.pb").unlink()
        with pytest.raises(ConfigError, match=r"there is no .*tflite_graph\.pb"):
            planned(from_graph)


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
