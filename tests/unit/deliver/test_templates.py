"""Which template a conversion uses: its key, and which cached templates are accepted."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner.checkpoint.index import read_index
from runner.deliver.cache import ConversionCache
from runner.deliver.plan import PlanRequest, make_plan
from runner.deliver.run import preload_for
from runner.deliver.templates import Templates, template_cache, template_key
from runner.engines.base import Preload
from runner.errors import UsageError
from runner.graph.template import FILES, MADE_NAME, Audit
from runner.host.cache_dir import cache_dir
from runner.host.digests import sha256_of
from runner.recipes.recipe import CHECKPOINT
from runner.recipes.settings import Export, Nms

if TYPE_CHECKING:
    from pathlib import Path

    from runner.checkpoint.index import Bundle
    from runner.convert.plan import ConversionPlan
    from runner.deliver.plan import Plan
    from runner.graph.template import Template
    from runner.recipes.recipe import Recipe


@pytest.fixture
def asked(tiny_recipe: Recipe, model_dir: Path, tmp_path: Path) -> PlanRequest:
    return PlanRequest(
        recipe=tiny_recipe,
        variants=("fp32",),
        model_dir=model_dir,
        out_dir=tmp_path / "out",
        choices={"export": Export.TEMPLATE},
        speedups=("late-imports",),
        toolchains=("one",),
    )


def plan_of(asked: PlanRequest, **changes: Any) -> Plan:  # noqa: ANN401 - fields of PlanRequest
    asked = replace(asked, **changes)
    return make_plan(asked, sha256_of=sha256_of, read_facts=lambda config, _: pytest.fail(str(config)))


def planned(asked: PlanRequest, **changes: Any) -> ConversionPlan:  # noqa: ANN401 - fields of PlanRequest
    (conversion,) = plan_of(asked, **changes).conversions
    return conversion


# --- the key ----------------------------------------------------------------------------------------------


def test_folders_are_no_part_of_the_key(asked: PlanRequest, model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "there")
    other = planned(asked, model_dir=tmp_path / "there", out_dir=tmp_path / "other")
    assert template_key(planned(asked), "one") == template_key(other, "one")


def test_all_that_a_graph_depends_on_is_part_of_the_key(
    asked: PlanRequest, tiny_recipe: Recipe, model_dir: Path
) -> None:
    other_choices: tuple[dict[str, object], ...] = (
        {"score_threshold": 0.5},  # an edit of the config
        {"nms": Nms.FAST},  # a flag of the script
        {"max_detections": 25},
    )
    choices = asked.choices
    keys = [
        template_key(planned(asked), "one"),
        template_key(planned(asked), "another toolchain"),
        template_key(planned(asked, speedups=()), "one"),
        template_key(
            planned(asked, recipe=tiny_recipe.with_variants(export_flags=("--max_classes_per_detection=2",))),
            "one",
        ),
        template_key(planned(asked, recipe=tiny_recipe.with_variants(config_set={"a.b": 1})), "one"),
        *(template_key(planned(asked, choices={**choices, **other}), "one") for other in other_choices),
    ]
    with (model_dir / "fp32" / "pipeline.config").open("a") as config:
        config.write("# another config\n")
    keys.append(template_key(planned(asked), "one"))
    assert len(set(keys)) == len(keys) == 9


def test_what_does_not_change_the_graph_is_no_part_of_the_key(asked: PlanRequest) -> None:
    unchecked = planned(asked, choices={**asked.choices, "check": False})
    assert template_key(unchecked, "one") == template_key(planned(asked), "one")


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({"name": "another"}, False),
        ({"dtype": "float64"}, False),
        ({"shape": (7,)}, False),
        ({"masked_crc32c": 7}, True),
        ({"offset": 7, "shard": 1}, True),
    ],
)
def test_of_a_tensor_all_but_its_value_is_part_of_the_key(
    asked: PlanRequest, change: dict[str, Any], is_same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(asked)
    before = template_key(plan, "one")

    def changed(prefix: Path) -> Bundle:
        bundle = read_index(prefix)
        first, *rest = bundle.tensors.values()
        tensors = (replace(first, **change), *rest)
        return replace(bundle, tensors={it.name: it for it in tensors})

    monkeypatch.setattr("runner.deliver.templates.read_index", changed)
    assert (template_key(plan, "one") == before) == is_same


# --- the cache --------------------------------------------------------------------------------------------


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    return Templates(folder=tmp_path / "taken", toolchain="one")


def put(plan: ConversionPlan, tmp_path: Path, made: str | None = None) -> Path:
    """Put a template into the user's cache, and return its entry."""
    folder = tmp_path / "made"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    record = {"madeOn": "2026-01-01T00:00:00Z", "madeFrom": "a" * 64, "configReport": {"changes": []}}
    (folder / MADE_NAME).write_text(json.dumps(record) if made is None else made)
    key = template_key(plan, "one")
    template_cache().keep(key, [folder / name for name in FILES])
    return template_cache().folder / key


def test_templates_are_in_the_cache_folder_also_where_no_conversions_are_kept(
    asked: PlanRequest, templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_CACHE_MIB", "0")
    entry = put(planned(asked), tmp_path)
    assert entry.parent == cache_dir() / "templates"
    template = templates.find(planned(asked))
    assert template is not None
    assert template.made_from == "a" * 64
    assert template.folder.parent == templates.folder


def test_a_conversion_that_wants_the_script_gets_no_template(
    asked: PlanRequest, templates: Templates, tmp_path: Path
) -> None:
    put(planned(asked), tmp_path)
    assert templates.find(planned(asked, choices={})) is None


def test_the_detection_api_is_imported_only_where_the_script_will_run(
    asked: PlanRequest, templates: Templates, tmp_path: Path
) -> None:
    plans = plan_of(asked).conversions
    assert preload_for(plans, templates) is Preload.DETECTION_API
    put(planned(asked), tmp_path)
    templates = Templates(folder=tmp_path / "taken again", toolchain="one")
    assert preload_for(plans, templates) is Preload.TENSORFLOW
    assert preload_for(plan_of(asked, choices={}).conversions, templates) is Preload.DETECTION_API


def test_a_graph_of_the_archive_needs_neither_script_nor_template(
    asked: PlanRequest, templates: Templates, tiny_recipe: Recipe, model_dir: Path
) -> None:
    (model_dir / "fp32" / "tflite_graph.pb").write_bytes(b"a graph")
    assert tiny_recipe.variants["fp32"].starts_from == CHECKPOINT
    recipe = tiny_recipe.with_variants(starts_from="tflite_graph.pb")
    assert templates.find(planned(asked, recipe=recipe)) is None
    assert preload_for(plan_of(asked, recipe=recipe).conversions, templates) is Preload.TENSORFLOW


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_template_is_not_used_and_goes(
    asked: PlanRequest, templates: Templates, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = put(planned(asked), tmp_path)
    (entry / name).write_text("damaged")
    assert templates.find(planned(asked)) is None
    assert not entry.exists()
    assert f"is damaged ({name}); it is removed" in capsys.readouterr().err


@pytest.mark.parametrize("made", ["no JSON", "[]", "{}", '{"madeOn": 1, "madeFrom": 2, "configReport": 3}'])
def test_a_template_without_a_record_is_not_used_and_goes(
    asked: PlanRequest, templates: Templates, tmp_path: Path, made: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = put(planned(asked), tmp_path, made)
    assert templates.find(planned(asked)) is None
    assert not entry.exists()
    assert "is not a template's record" in capsys.readouterr().err


def test_a_dropped_template_is_gone_for_this_run_and_the_next(
    asked: PlanRequest, templates: Templates, tmp_path: Path
) -> None:
    entry = put(planned(asked), tmp_path)
    taken = templates.find(planned(asked))
    assert taken is not None
    templates.drop(planned(asked))
    assert not entry.exists()
    assert taken.folder.is_dir(), "another conversion may be using it"
    assert templates.find(planned(asked)) is None
    assert Templates(folder=tmp_path / "again", toolchain="one").find(planned(asked)) is None


def test_a_job_waits_for_the_template_that_another_one_makes(
    asked: PlanRequest, templates: Templates, tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as executor, templates.find_or_wait(planned(asked)) as nothing:
        assert nothing is None
        other = executor.submit(found_by_waiting, templates, planned(asked))
        with pytest.raises(TimeoutError):
            other.result(timeout=0.2)
        put(planned(asked), tmp_path)
    taken = other.result()
    assert taken is not None
    assert taken.made_from == "a" * 64


def test_no_job_waits_once_a_template_could_not_be_made(asked: PlanRequest, templates: Templates) -> None:
    assert found_by_waiting(templates, planned(asked)) is None
    with templates.find_or_wait(planned(asked)), ThreadPoolExecutor() as executor:
        assert executor.submit(found_by_waiting, templates, planned(asked)).result(timeout=20) is None


def found_by_waiting(templates: Templates, plan: ConversionPlan) -> Template | None:
    with templates.find_or_wait(plan) as template:
        return template


def test_removing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    ConversionCache(folder=tmp_path / "none").remove("0" * 32)
    assert not (tmp_path / "none").exists()


# --- what is said of it -----------------------------------------------------------------------------------


def audit(**changes: Any) -> Audit:  # noqa: ANN401 - fields of Audit
    passed = Audit(
        template_sha256="t", filled_graph_sha256="one", exported_graph_sha256="one", has_same_config=True
    )
    return replace(passed, **changes)


def test_an_audit_that_fails_names_both_digests() -> None:
    assert audit().passed
    other_graph, other_config = audit(exported_graph_sha256="other"), audit(has_same_config=False)
    assert not other_graph.passed
    assert "sha256 one" in other_graph.sentence
    assert "other" in other_graph.sentence
    assert not other_config.passed
    assert "different edited config" in other_config.sentence


def test_a_template_cannot_give_the_graph_as_text(asked: PlanRequest) -> None:
    with pytest.raises(UsageError, match="--keep-pbtxt and --export template") as caught:
        planned(asked, choices={**asked.choices, "keep_pbtxt": True})
    assert "--export script" in str(caught.value.tip)


def test_what_the_script_made_is_as_good_as_what_a_template_gives(asked: PlanRequest) -> None:
    """The conversion cache may use it for a template request, but not the other way round."""
    by_template = plan_of(asked).keys["fp32"]["one"]
    by_script = plan_of(asked, choices={}).keys["fp32"]["one"]
    assert by_template[0] not in by_script
    assert by_template[1] == by_script[0]
