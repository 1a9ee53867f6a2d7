"""A conversion as small as a real one can be: real files, nothing run. Only what came out of TOCO is old."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from runner.checkpoint import find_checkpoint
from runner.conversion import Conversion, Request, Settings, finish
from runner.engines.base import JobResult, Toolchain
from runner.export import CONFIG_NAME, GRAPH_NAME, Exported, ExportRequest, export_argv
from runner.proof.provenance import PROVENANCE_NAME, write_provenance
from runner.recipe import Recipe, load_recipe
from runner.scripts import Run, Script, ScriptOptions
from runner.toco import TocoRequest, toco_argv
from runner.toolchain.pins import load_base_image, load_models_pin
from runner.toolchain.toolchain_digest import toolchain_digest

DATA = Path(__file__).resolve().parents[2] / "data"
TOCO_RUNS = {"one": "fp32.run0.tflite", "other": "fp32.run1.tflite"}
ENDED_WELL = JobResult(
    exit_code=0,
    stdout=(),
    stderr=(),
    timed_out=False,
    out_of_memory=False,
    peak_memory_mib=1.0,
    wall_s=1.0,
    cpu_s=1.0,
)

Convert = Callable[[str], Conversion]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder below which everything of the user lies."""
    folder = tmp_path / "home" / "someone"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Recipe:
    """The shipped recipe, with the tiny checkpoint as the published one."""
    data_dir = tmp_path / "recipe" / "fp32"
    data_dir.mkdir(parents=True)
    shutil.copy(DATA / "tiny_checkpoint" / "plain" / "tensors.tsv", data_dir)
    published = load_recipe()
    variant = replace(published.variants["fp32"], data_dir=data_dir)
    return replace(published, variants=MappingProxyType({"fp32": variant}))


@pytest.fixture
def model_dir(home: Path) -> Path:
    folder = home / "model"
    shutil.copytree(DATA / "tiny_checkpoint" / "plain", folder / "fp32")
    (folder / "fp32" / "pipeline.config").write_text("model {}\n")
    return folder


@pytest.fixture
def toolchain() -> Toolchain:
    commit = load_models_pin().pypi.commit
    return Toolchain(
        engine="docker",
        id="sha256:" + "a" * 64,
        digest=toolchain_digest(commit),
        base=load_base_image(),
        models_road="pypi",
        models_commit=commit,
    )


@pytest.fixture
def convert(home: Path, tiny_recipe: Recipe, model_dir: Path) -> Convert:
    """Lay down what a conversion leaves; each run has TOCO's and the exporter's dice fall another way."""

    def lay_down(run: str) -> Conversion:
        work_dir = home / run / "fp32"
        work_dir.mkdir(parents=True)
        request = _request(tiny_recipe, model_dir, work_dir)
        shutil.copy(DATA / "tiny_graph" / f"{run}.pb", work_dir / GRAPH_NAME)
        shutil.copy(DATA / "tiny_detector" / TOCO_RUNS[run], request.raw)
        (work_dir / CONFIG_NAME).write_text("model { ssd {} }\n")
        for name in ("export.log", "toco.log"):
            (work_dir / name).write_text(f"run {run}\n")
        return Conversion(
            request=request,
            exported=_exported(request),
            toco_run=_toco_run(request),
            settled=finish(request),
        )

    return lay_down


@pytest.fixture
def delivered(convert: Convert, toolchain: Toolchain) -> Path:
    """The folder of a finished conversion, its provenance and the copy one folder up."""
    conversion = convert("one")
    folder = conversion.request.work_dir
    shutil.copy(conversion.request.final, folder.parent / conversion.request.variant.copy_name)
    write_provenance(conversion, toolchain, folder / PROVENANCE_NAME)
    return folder


def _request(recipe: Recipe, model_dir: Path, work_dir: Path) -> Request:
    checkpoint = model_dir / "fp32" / recipe.checkpoint_prefix
    return Request(
        recipe=recipe,
        variant=recipe.variants["fp32"],
        checkpoint=find_checkpoint(model_dir / "fp32" / "pipeline.config", checkpoint),
        settings=Settings.of(recipe),
        options=ScriptOptions(log_dir=work_dir),
        work_dir=work_dir,
    )


def _exported(request: Request) -> Exported:
    config = request.work_dir / CONFIG_NAME
    export_request = ExportRequest(
        pipeline_config=request.checkpoint.config,
        checkpoint_prefix=request.checkpoint.prefix,
        is_quantized=False,
        score_threshold=0.3,
        max_detections=10,
        use_regular_nms=True,
        keep_pbtxt=False,
        work_dir=request.work_dir,
        options=request.options,
    )
    return Exported(
        config=config,
        config_argv=(
            f"{request.work_dir.parents[2]}/toolchain/steps/pipeline_config.py",
            "--input",
            str(request.checkpoint.config),
            "--output",
            str(config),
        ),
        config_report={"changes": [{"field": "score_threshold", "from": 1e-08, "to": 0.3}]},
        graph=request.work_dir / GRAPH_NAME,
        graph_text=None,
        run=_run(request, export_argv(export_request), "export.log"),
    )


def _toco_run(request: Request) -> Run:
    recipe, variant = request.recipe, request.variant
    toco_request = TocoRequest(
        graph=request.work_dir / GRAPH_NAME,
        output=request.raw,
        inference_type=variant.inference_type,
        input_array=recipe.input_array,
        input_shape=recipe.input_shape,
        output_arrays=recipe.output_arrays,
        mean_value=variant.mean_value,
        std_value=variant.std_value,
        options=request.options,
    )
    return _run(request, toco_argv(toco_request), "toco.log")


def _run(request: Request, argv: tuple[str, ...], log_name: str) -> Run:
    script = Script(name=argv[0], argv=argv, log_name=log_name, options=request.options)
    return Run(script=script, result=ENDED_WELL)
