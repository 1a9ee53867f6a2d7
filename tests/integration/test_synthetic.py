"""One model per feature of an architecture, from its config alone: make, convert, check, digest.

What a model gives is recorded beside its config, in ``synthetic.toml``; the tests repeat it.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import tomli

from runner.convert.export import GRAPH_NAME, config_argv, edit_config, export_argv, run_export
from runner.convert.speedups import SPEEDUPS
from runner.convert.stand_in import SyntheticArchive, write_synthetic
from runner.convert.toco import run_toco, toco_argv
from runner.engines.base import Folders
from runner.engines.persistent import PersistentEngine
from runner.evidence.check.compare import ConcatSetting, SettingSource
from runner.evidence.check.run import TOLERANCE, CheckReport, CheckRequest, GraphRun, judge, run_graph
from runner.graph.template import fill_template, make_template
from runner.proof.recovery.file_tensors import read_file_tensors
from runner.proof.recovery.prove_file import FileVerdict, prove_file
from runner.proof.recovery.recover import read_subject
from runner.recipes.recipe import RECIPES_DIR, InferenceType
from runner.recipes.settings import Nms, Settings
from runner.scripts.provider import ToolchainProvider
from runner.scripts.run import ScriptOptions
from runner.tflite import canonical
from runner.tflite.model import read_model_file
from tests.integration.altered_checkpoint import write_altered
from tests.integration.test_check import with_value
from tests.locations import DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from runner.proof.recovery.prove_file import FileProof
    from runner.recipes.recipe import Recipe

pytestmark = pytest.mark.engine("local")  # the files are the same with every engine, and one has the time

POST_PROCESS: Final = "TFLite_Detection_PostProcess"
OUTPUTS: Final = (POST_PROCESS, *(f"{POST_PROCESS}:{number}" for number in (1, 2, 3)))


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model with our own config, in the layout of its archive."""

    folder: Path
    prefix_name: str = "model.ckpt"
    sub_folder: str = ""
    ships_graph: bool = False
    change_concat_input_ranges: bool = False
    nms: Nms = Nms.FAST

    @property
    def recorded(self) -> Mapping[str, Any]:
        """The recorded result of the model."""
        return tomli.loads((self.folder / "synthetic.toml").read_text("utf-8"))


def mobiledet(name: str, variant: str, sub_folder: str) -> Model:
    return Model(
        folder=RECIPES_DIR / f"ssdlite_mobiledet_{name}_320x320_coco_2020_05_19" / variant,
        prefix_name="model.ckpt-400000",
        sub_folder=sub_folder,
        change_concat_input_ranges=True,
        nms=Nms.REGULAR,
    )


MODELS: Final[Mapping[str, Model]] = {
    "MobileDet DSP": mobiledet("dsp", "fp32", "fp32"),
    "MobileDet DSP, quantized": mobiledet("dsp", "uint8", "uint8"),
    "MobileDet CPU": mobiledet("cpu", "fp32", ""),
    "v1, quantized": Model(
        folder=RECIPES_DIR / "ssd_mobilenet_v1_quantized_300x300_coco14_sync_2018_07_18" / "uint8"
    ),
    "v2, a field that was withdrawn": Model(folder=RECIPES_DIR / "ssd_mobilenet_v2_coco_2018_03_29" / "fp32"),
    "v2, quantized, from the shipped graph": Model(
        folder=RECIPES_DIR / "ssd_mobilenet_v2_quantized_300x300_coco_2019_01_03" / "uint8", ships_graph=True
    ),
    "v3 large": Model(folder=RECIPES_DIR / "ssd_mobilenet_v3_large_coco_2020_01_14" / "fp32"),
    "v1 FPN, shared box predictor": Model(
        folder=RECIPES_DIR
        / "ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync_2018_07_03"
        / "fp32"
    ),
    "three classes": Model(folder=DATA / "three_classes"),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a model: the edits of its config, the file, and what to check."""

    changes: tuple[Mapping[str, Any], ...]
    request: CheckRequest
    run: GraphRun
    made: Made

    @property
    def report(self) -> CheckReport:
        return judge(self.request, self.run)

    @property
    def record(self) -> Mapping[str, Any]:
        """Return the record of a model."""
        file = self.request.tflite
        operators = Counter(each.name for each in read_model_file(file).graphs[0].operators)
        return {"sha256": canonical.normalize_keys(file, None).digests.sha256, "operators": dict(operators)}

    def judge_with(self, tensor: str, value: float) -> CheckReport:
        """Judge a copy with another value in the first element of a tensor."""
        planted = self.request.work_dir / "planted.tflite"
        planted.write_bytes(with_value(tensor, "<f4", value)(self.request.tflite.read_bytes()))
        return judge(replace(self.request, tflite=planted), self.run)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A graph that the script exported, with its inputs."""

    place: Place
    graph: Path
    config: Path
    prefix: Path
    settings: Settings

    def filled(self, prefix: Path) -> bytes:
        """Return the graph that a template of this graph gives with a checkpoint."""
        session, options, folder = self.place.session, self.place.options, self.place.folder
        template = make_template(
            session,
            folder / "template",
            graph=self.graph,
            config=self.config,
            prefix=self.prefix,
            config_report={},
            made_from="",
            options=options,
        )
        graph = folder / "filled.pb"
        fill_template(session, template, prefix, graph, options, log_name="fill.log")
        return graph.read_bytes()

    def exported(self, prefix: Path) -> bytes:
        """Return the graph that the script exports from another checkpoint."""
        out_dir = self.place.folder / "other"
        out_dir.mkdir()
        return self.place.export(prefix, self.settings, out_dir).read_bytes()


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place where a model is made and converted."""

    session: Session
    recipe: Recipe
    folder: Path
    options: ScriptOptions

    def convert(self, model: Model) -> Result:
        archive = self.archive(model)
        prefix = write_synthetic(self.session, archive, self.options)
        settings = Settings(nms=model.nms)
        report = edit_config(self.session, self.edit(archive, settings), self.options)
        graph = archive.folder / GRAPH_NAME
        if not model.ships_graph:
            graph = self.export(prefix, settings, self.folder)
        tflite, is_quantized = self.toco(model, graph, report), report["is_quantized"]
        request = CheckRequest(
            variant=self.recipe.variants["uint8" if is_quantized else "fp32"],
            graph=graph,
            tflite=tflite,
            work_dir=self.folder,
            options=self.options,
            concat=ConcatSetting(
                change_concat_input_ranges=model.change_concat_input_ranges, source=SettingSource.OPTION
            ),
        )
        made = Made(
            place=self,
            graph=graph,
            config=(archive.folder if model.ships_graph else self.folder) / "pipeline.config",
            prefix=prefix,
            settings=settings,
        )
        run = run_graph(self.session, request)
        return Result(changes=tuple(report["changes"]), request=request, run=run, made=made)

    def archive(self, model: Model) -> SyntheticArchive:
        """Return the archive to make from the model's config, of which the session reads a copy."""
        config = self.folder / "archive.config"
        config.write_bytes((model.folder / "pipeline.config").read_bytes())
        return SyntheticArchive(
            pipeline_config=config,
            folder=self.folder / "archive" / model.sub_folder,
            prefix_name=model.prefix_name,
            ships_graph=model.ships_graph,
        )

    def edit(self, archive: SyntheticArchive, settings: Settings) -> tuple[str, ...]:
        return config_argv(
            toolchain_dir=str(self.session.toolchain_dir),
            source=str(archive.folder / "pipeline.config"),
            target=str(self.folder / "pipeline.config"),
            settings=settings,
            is_quantized=None,
        )

    def export(self, prefix: Path, settings: Settings, out_dir: Path) -> Path:
        config = str(self.folder / "pipeline.config")
        argv = export_argv(config=config, prefix=str(prefix), out_dir=str(out_dir), settings=settings)
        run_export(self.session, argv, out_dir, self.options, speedups=SPEEDUPS, keep_pbtxt=False)
        return out_dir / GRAPH_NAME

    def toco(self, model: Model, graph: Path, report: Mapping[str, Any]) -> Path:
        tflite, is_quantized = self.folder / "model.tflite", report["is_quantized"]
        argv = toco_argv(
            graph=str(graph),
            output=str(tflite),
            inference_type=InferenceType.QUANTIZED_UINT8 if is_quantized else InferenceType.FLOAT,
            input_array="normalized_input_image_tensor",
            input_shape=(1, report["input_height"], report["input_width"], report["input_channels"]),
            output_arrays=OUTPUTS,
            mean_value=128 if is_quantized else None,
            std_value=128 if is_quantized else None,
            more_flags=() if model.change_concat_input_ranges else ("--change_concat_input_ranges=false",),
        )
        run_toco(self.session, argv, tflite, self.options)
        return tflite


@pytest.fixture(scope="module")
def result_of(session: Session, recipe: Recipe, workspace: Path) -> Callable[[str], Result]:
    """Make and convert a model, once for all tests."""

    @functools.cache
    def make(name: str) -> Result:
        folder = workspace / "synthetic" / name.replace(" ", "-")
        folder.mkdir(parents=True)
        options = ScriptOptions(log_dir=folder / "logs")
        return Place(session=session, recipe=recipe, folder=folder, options=options).convert(MODELS[name])

    return make


@pytest.mark.parametrize("name", MODELS)
def test_model_is_converted_as_recorded(result_of: Callable[[str], Result], name: str) -> None:
    result = result_of(name)
    report = result.report
    assert report.findings == ()
    assert report.passed
    limits = [each.limit for each in report.differences if each.limit is not None]
    assert report.image_spread > 10 * max(limits, default=TOLERANCE), "the network ignores its input"
    recorded = MODELS[name].recorded
    assert result.record == {key: recorded[key] for key in result.record}


@pytest.mark.parametrize("name", MODELS)
def test_template_gives_the_graph_again(result_of: Callable[[str], Result], name: str) -> None:
    made = result_of(name).made
    assert made.filled(made.prefix) == made.graph.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileDet DSP, quantized", "v1 FPN, shared box predictor", "v3 large"])
def test_template_gives_the_graph_that_the_script_exports_from_another_checkpoint(
    result_of: Callable[[str], Result], name: str
) -> None:
    made = result_of(name).made
    other = write_altered(made.place.session, made.prefix, made.place.folder / "other values" / "model.ckpt")
    filled = made.filled(other)
    assert filled == made.exported(other)
    assert filled != made.graph.read_bytes()


@pytest.fixture(scope="module")
def prove(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., FileProof]]:
    """Prove a file with a config, as `prove FILE --pipeline-config` does, in one session for all tests."""
    logs = tmp_path_factory.mktemp("prove-logs")

    def prove_one(file: Path, config: Path) -> FileProof:
        options = ScriptOptions(log_dir=logs / config.parent.name)
        provider = ToolchainProvider(engine=lambda: kept, options=lambda: options)
        return prove_file(file, read_subject(file, recipe=None, config=config), provider)

    with contextlib.closing(PersistentEngine(engine, Folders())) as kept:
        yield prove_one


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_recovered_checkpoint_gives_the_file_again(
    result_of: Callable[[str], Result], prove: Callable[..., FileProof], name: str
) -> None:
    result = result_of(name)
    proof = prove(result.request.tflite, result.made.config)
    assert proof.verdict is FileVerdict.SAME_BYTES, proof.best.reasons


@pytest.mark.parametrize("name", [name for name, it in MODELS.items() if "structure" in it.recorded])
def test_the_recorded_structure_is_that_of_the_file(result_of: Callable[[str], Result], name: str) -> None:
    """By which `prove FILE` finds the recipe of a file."""
    model = read_model_file(result_of(name).request.tflite)
    assert read_file_tensors(model).structure == MODELS[name].recorded["structure"]


def test_field_that_was_withdrawn_is_removed(result_of: Callable[[str], Result]) -> None:
    (change,) = result_of("v2, a field that was withdrawn").changes
    assert change["field"] == "SsdFeatureExtractor.batch_norm_trainable"


TOWER = "WeightSharedConvolutionalBoxPredictor/BoxPredictionTower/conv2d_0"
BATCH_NORM = f"{TOWER}/BatchNorm/feature_0/FusedBatchNormV3"
BLOCK = "FeatureExtractor/MobilenetV3/expanded_conv_6"


@pytest.mark.parametrize(
    ("name", "tensor", "what"),
    [
        # TOCO folds no batch norm into weights that all levels share.
        ("v1 FPN, shared box predictor", f"{TOWER}/weights", "weights"),
        ("v1 FPN, shared box predictor", f"{BATCH_NORM}_mul_0_param", "operand"),
        ("v1 FPN, shared box predictor", f"{BATCH_NORM}_add_param", "operand"),
        # TOCO multiplies these weights by the 1/6 of the hard swish before them.
        ("v3 large", f"{BLOCK}/depthwise/depthwise_weights", "weights"),
        ("v3 large", f"{BLOCK}/expand/hard_swish/add/y", "operand"),
    ],
)
def test_fault_is_named(result_of: Callable[[str], Result], name: str, tensor: str, what: str) -> None:
    report = result_of(name).judge_with(tensor, 0.5)
    assert (tensor, what) in {(each.tensor, each.what) for each in report.findings}
