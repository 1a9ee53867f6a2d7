"""`--force` and `--overwrite`: which files are replaced, and when the cache is used."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest

from runner.deliver.cache import ConversionCache
from runner.deliver.plan import Plan, PlanRequest, make_plan
from runner.deliver.run import deliver
from runner.errors import EngineError, UsageError
from runner.host.digests import digest_file, sha256_of
from runner.scripts.run import ScriptOptions

if TYPE_CHECKING:
    from pathlib import Path

    from runner.recipes.recipe import Recipe


@pytest.fixture
def plan(tiny_recipe: Recipe, model_dir: Path, tmp_path: Path) -> Plan:
    asked = PlanRequest(
        recipe=tiny_recipe,
        variants=("fp32",),
        model_dir=model_dir,
        out_dir=tmp_path / "out",
        speedups=(),
        toolchains=("one",),
    )
    return make_plan(asked, sha256_of=sha256_of, read_facts=lambda config, _: pytest.fail(str(config)))


@pytest.fixture
def cache(plan: Plan, tmp_path: Path) -> ConversionCache:
    """A cache that contains the conversion."""
    made = tmp_path / "made"
    made.mkdir()
    (conversion,) = plan.conversions
    files = [made / name for name in conversion.products.in_folder]
    for file in files:
        file.write_text(f"ours: {file.name}")
    digests = digest_file(made / conversion.products.final)
    named = {"sha256": digests.sha256, "md5": digests.md5, "gitBlob": digests.git_blob}
    subject = {"digest": named, "annotations": {"sizeBytes": digests.size_bytes}}
    (made / conversion.products.provenance).write_text(json.dumps({"subject": [subject]}))
    cache = ConversionCache(folder=tmp_path / "conversions")
    cache.keep(plan.keys["fp32"]["one"][0], files)
    return cache


@pytest.fixture
def foreign_file(plan: Plan) -> Path:
    """A foreign file in the place of a result."""
    (conversion,) = plan.conversions
    file = plan.out_dir / str(conversion.products.copy)
    file.parent.mkdir()
    file.write_text("theirs")
    return file


def convert_now() -> NoReturn:
    raise EngineError("it is converted now")


def run(plan: Plan, cache: ConversionCache, tmp_path: Path) -> None:
    deliver(plan, convert_now, ScriptOptions(log_dir=tmp_path / "logs"), cache)


def test_force_converts_again(plan: Plan, cache: ConversionCache, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="converted now"):
        run(replace(plan, force=True), cache, tmp_path)


@pytest.mark.parametrize("force", [False, True])
def test_a_foreign_file_is_not_replaced_even_with_force(
    plan: Plan, cache: ConversionCache, foreign_file: Path, tmp_path: Path, force: bool
) -> None:
    with pytest.raises(UsageError, match="was not made by this tool") as caught:
        run(replace(plan, force=force), cache, tmp_path)
    assert "--overwrite" in (caught.value.tip or "")
    assert foreign_file.read_text() == "theirs"


def test_overwrite_replaces_a_foreign_file_and_uses_the_cache(
    plan: Plan, cache: ConversionCache, foreign_file: Path, tmp_path: Path
) -> None:
    run(replace(plan, overwrite=True), cache, tmp_path)
    assert foreign_file.read_text() == "ours: mobiledet.tflite"
