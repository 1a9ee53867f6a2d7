"""Graph templates: a filled template equals the script's export, and a faulty template is detected."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from runner.convert.export import GRAPH_NAME, config_argv, edit_config, export_argv, run_export
from runner.convert.pipeline import Workplace
from runner.convert.speedups import SPEEDUPS
from runner.deliver.cache import ConversionCache
from runner.deliver.plan import Plan, PlanRequest, make_plan
from runner.deliver.run import Result, run_conversion
from runner.deliver.templates import Templates
from runner.engines.base import Folders, Preload
from runner.errors import ConfigError
from runner.graph.template import Template, fill_template, make_template
from runner.host.digests import sha256_of
from runner.host.output_dir import OutputDir
from runner.recipes.settings import Export, Settings
from runner.scripts.run import ScriptOptions
from tests.integration.altered_checkpoint import OTHER_VALUES, write_altered
from tests.integration.changed_template import flip_a_bit
from tests.stand_in import FINAL_SHA256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import Recipe
    from tests.integration.conftest import Converted, Finished, Program

pytestmark = pytest.mark.any_engine

VARIANTS = ("fp32", "uint8")
PREFIX = "model.ckpt-400000"


# --- the commands -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def other_dir(session: Session, stand_in_dir: Path, workspace: Path) -> Path:
    """A model directory whose values differ from the stand-in's."""
    for name in VARIANTS:
        folder = workspace / "other" / name
        write_altered(session, stand_in_dir / name / PREFIX, folder / PREFIX)
        shutil.copy(stand_in_dir / name / "pipeline.config", folder)
    return workspace / "other"


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Conversions of two model directories in sequence, with one template cache."""

    first: Path
    second: Path
    second_by_script: Path


def build_all(program: Program, model_dir: Path, out_dir: Path, cache: Path, export: str) -> Finished:
    flags = ("--model-dir", model_dir, "--out", out_dir, "--no-check", "--export", export)
    done = program("build-all", *flags, env={"RUNNER_CACHE_DIR": str(cache)})
    assert done.exit_code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def runs(
    program: Program,
    stand_in_dir: Path,
    other_dir: Path,
    empty_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    out_dir = tmp_path_factory.mktemp("by-template")
    runs = Runs(first=out_dir / "1", second=out_dir / "2", second_by_script=out_dir / "3")
    build_all(program, stand_in_dir, runs.first, empty_cache, "template")
    build_all(program, other_dir, runs.second, empty_cache, "template")
    build_all(program, other_dir, runs.second_by_script, empty_cache, "script")
    return runs


def predicate(folder: Path) -> Mapping[str, Any]:
    statement: Any = json.loads((folder / "provenance.json").read_text())
    found: Mapping[str, Any] = statement["predicate"]
    return found


def graph_from(folder: Path) -> str:
    return str(predicate(folder)["buildDefinition"]["internalParameters"]["graphFrom"])


@pytest.mark.parametrize("name", VARIANTS)
def test_without_a_template_the_script_exports(runs: Runs, recipe: Recipe, name: str) -> None:
    assert graph_from(runs.first / name) == "script"
    assert sha256_of(runs.first / name / recipe.variants[name].file_name) == FINAL_SHA256[name]


@pytest.mark.parametrize("name", VARIANTS)
def test_template_and_script_give_the_same_files(runs: Runs, recipe: Recipe, name: str) -> None:
    assert graph_from(runs.second / name) == "template"
    assert graph_from(runs.second_by_script / name) == "script"
    for file in (recipe.variants[name].file_name, GRAPH_NAME, "pipeline.config"):
        assert sha256_of(runs.second / name / file) == sha256_of(runs.second_by_script / name / file)
        assert file == "pipeline.config" or sha256_of(runs.second / name / file) != sha256_of(
            runs.first / name / file
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_the_provenance_names_the_template_and_what_made_it(runs: Runs, name: str) -> None:
    first, second = (predicate(folder / name)["buildDefinition"] for folder in (runs.first, runs.second))
    made_from, *_ = first["resolvedDependencies"]
    (template,) = [
        it for it in second["resolvedDependencies"] if it["annotations"]["role"] == "graph template"
    ]
    assert template["annotations"]["madeFrom"] == made_from["digest"]["tensorsSha256"]
    assert len(template["digest"]["sha256"]) == 64
    steps = second["internalParameters"]["steps"]
    assert [step.get("insteadRun") for step in steps] == ["fill_template.py", "fill_template.py", None]
    assert "templateAudit" not in second["internalParameters"]


def test_explain_names_a_template_that_was_not_audited(program: Program, runs: Runs) -> None:
    explained = program("explain", runs.second / "fp32").stdout
    assert "was not audited on this checkpoint" in explained
    assert "--export template" in explained


@pytest.mark.slow
def test_a_damaged_template_is_found_by_its_digest(
    program: Program, runs: Runs, other_dir: Path, empty_cache: Path, tmp_path: Path
) -> None:
    """One bit is damaged."""
    copy = tmp_path / "cache"
    shutil.copytree(empty_cache, copy, symlinks=True)
    for graph in copy.glob("templates/*/template.pb"):
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 1
        graph.write_bytes(content)
    done = build_all(program, other_dir, tmp_path / "out", copy, "template")
    assert done.stderr.count("is damaged (template.pb)") == 2
    for name in VARIANTS:
        assert graph_from(tmp_path / "out" / name) == "script"
        assert sha256_of(tmp_path / "out" / name / GRAPH_NAME) == sha256_of(runs.second / name / GRAPH_NAME)


# --- audits -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Conversions of one plan in one session, as a batch runs them."""

    session: Session
    engine: Engine
    plan: Plan
    templates: Templates
    conversions: ConversionCache
    work_dir: Path

    def convert(self, *, number: int, audit: bool) -> Result:
        (planned,) = self.plan.conversions
        work_dir = self.work_dir / str(number)
        work_dir.mkdir()
        return run_conversion(
            self.session,
            self.plan,
            planned,
            Workplace(
                model_dir=self.plan.model_dir,
                out_dir=work_dir,
                options=ScriptOptions(log_dir=work_dir / "logs"),
            ),
            self.engine.prepare(),
            OutputDir.at(self.plan.out_dir),
            self.conversions,
            self.templates,
            audit_in=self.session if audit else None,
        )


@pytest.fixture
def bench(
    session: Session,
    engine: Engine,
    recipe: Recipe,
    other_dir: Path,
    empty_cache: Path,
    runs: Runs,
    workspace: Path,
) -> Bench:
    """A bench whose cache contains the template that `runs` made."""
    assert runs.first.is_dir()
    folder = workspace / "audits"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(empty_cache / "templates", folder / "cache")
    digest = engine.prepare().digest
    asked = PlanRequest(
        recipe=recipe,
        variants=("fp32",),
        model_dir=other_dir,
        out_dir=folder / "out",
        choices={"export": Export.TEMPLATE, "check": False},
        speedups=SPEEDUPS,
        toolchains=(digest,),
    )
    plan = make_plan(asked, sha256_of=sha256_of, read_facts=lambda config, _: pytest.fail(str(config)))
    cached = ConversionCache(folder=folder / "cache")
    return Bench(
        session=session,
        engine=engine,
        plan=plan,
        templates=Templates(folder=folder / "taken", toolchain=digest, cache=cached),
        conversions=ConversionCache(folder=folder / "conversions"),
        work_dir=folder,
    )


def test_an_audit_shows_that_the_script_gives_the_same_graph(bench: Bench) -> None:
    """Only then is the conversion cached: results of a template that fails an audit must not be cached."""
    assert bench.convert(number=0, audit=False).template is not None
    assert not bench.conversions.folder.exists()
    result = bench.convert(number=1, audit=True)
    assert len(list(bench.conversions.folder.iterdir())) == 1
    assert result.audit is not None
    assert result.audit.passed
    assert result.template == result.audit.template_sha256
    parameters = predicate(result.file.parent)["buildDefinition"]["internalParameters"]
    assert parameters["graphFrom"] == "template"
    assert parameters["templateAudit"]["passed"] is True


def test_one_changed_bit_of_a_template_is_found_by_an_audit(
    bench: Bench, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bit is in an anchor, and the cache records the digests of the changed file."""
    (planned,) = bench.plan.conversions
    template = bench.templates.find(planned)
    assert template is not None
    entry = bench.templates.cache.folder / template.folder.name
    flip_a_bit(entry, b"anchors")
    changed = replace(bench, templates=replace(bench.templates, folder=bench.work_dir / "taken again"))

    unaudited = changed.convert(number=1, audit=False)
    assert unaudited.template is not None
    wrong = sha256_of(unaudited.file.parent / GRAPH_NAME)
    right = sha256_of(runs.second_by_script / "fp32" / GRAPH_NAME)
    assert wrong != right

    result = changed.convert(number=2, audit=True)
    assert result.audit is not None
    assert not result.audit.passed
    assert (result.audit.filled_graph_sha256, result.audit.exported_graph_sha256) == (wrong, right)
    assert result.template is None
    assert sha256_of(result.file.parent / GRAPH_NAME) == right
    said = capsys.readouterr().err
    assert wrong in said
    assert right in said
    parameters = predicate(result.file.parent)["buildDefinition"]["internalParameters"]
    assert (parameters["graphFrom"], parameters["templateAudit"]["passed"]) == ("script", False)

    assert not entry.exists()
    assert changed.templates.find(planned) is None


# --- what an export does that a template must do too -----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Exports:
    """Exports by the script and by a template, with one config."""

    session: Session
    folder: Path
    config: Path

    @property
    def options(self) -> ScriptOptions:
        return ScriptOptions(log_dir=self.folder / "logs")

    def by_script(self, prefix: Path, name: str) -> Path:
        out_dir = self.folder / name
        out_dir.mkdir()
        argv = export_argv(
            config=str(self.config), prefix=str(prefix), out_dir=str(out_dir), settings=Settings()
        )
        run_export(self.session, argv, out_dir, self.options, speedups=SPEEDUPS, keep_pbtxt=False)
        return out_dir / GRAPH_NAME

    def template(self, graph: Path, prefix: Path) -> Template:
        return make_template(
            self.session,
            self.folder / "template",
            graph=graph,
            config=self.config,
            prefix=prefix,
            config_report={"changes": []},
            made_from="",
            options=self.options,
        )

    def by_template(self, template: Template, prefix: Path) -> Path:
        graph = self.folder / "filled.pb"
        fill_template(self.session, template, prefix, graph, self.options, log_name="fill.log")
        return graph


def new_exports(session: Session, stand_in_dir: Path, folder: Path) -> Exports:
    folder.mkdir()
    config = folder / "pipeline.config"
    argv = config_argv(
        toolchain_dir=str(session.toolchain_dir),
        source=str(stand_in_dir / "fp32" / "pipeline.config"),
        target=str(config),
        settings=Settings(score_threshold=0.3),
        is_quantized=False,
    )
    edit_config(session, argv, ScriptOptions(log_dir=folder / "logs"))
    return Exports(session=session, folder=folder, config=config)


@pytest.fixture(scope="module")
def exports(session: Session, stand_in_dir: Path, workspace: Path) -> Exports:
    return new_exports(session, stand_in_dir, workspace / "template traps")


@pytest.fixture(scope="module")
def template(exports: Exports, converted: Converted, stand_in_dir: Path) -> Template:
    """A template from the existing conversion."""
    return exports.template(converted.out_dir / "fp32" / GRAPH_NAME, stand_in_dir / "fp32" / PREFIX)


AVERAGES = """
for name in [name for name in tensors if name.endswith(("weights", "biases", "gamma", "beta"))]:
    tensors[name + "/ExponentialMovingAverage"] = tensors[name] * np.float32(0.5)
"""


@pytest.mark.slow
def test_with_moving_averages_the_template_takes_them(
    session: Session, stand_in_dir: Path, workspace: Path
) -> None:
    exports = new_exports(session, stand_in_dir, workspace / "moving averages")
    plain = exports.config.read_text()
    assert "use_moving_averages: false" in plain
    exports.config.write_text(plain.replace("use_moving_averages: false", "use_moving_averages: true"))
    first, second = (exports.folder / name / PREFIX for name in ("first", "second"))
    write_altered(exports.session, stand_in_dir / "fp32" / PREFIX, first, AVERAGES)
    write_altered(exports.session, first, second, OTHER_VALUES)
    template = exports.template(exports.by_script(first, "1"), first)
    variables = json.loads((template.folder / "variables.json").read_text())
    averages = [it["node"] for it in variables if it["tensor"] == f"{it['node']}/ExponentialMovingAverage"]
    assert len(averages) > 200
    assert len(variables) > len(averages), "moving means and variances have none"
    filled, exported = exports.by_template(template, second), exports.by_script(second, "2")
    assert filled.read_bytes() == exported.read_bytes()


SLOTS = """
for name in [name for name in tensors if name.endswith("weights")]:
    tensors[name + "/Momentum"] = tensors[name] * np.float32(3)
"""


def test_variables_that_the_graph_has_not_are_ignored(
    exports: Exports, template: Template, converted: Converted, stand_in_dir: Path
) -> None:
    """An example in every checkpoint is ``global_step``."""
    prefix = exports.folder / "slots" / PREFIX
    write_altered(exports.session, stand_in_dir / "fp32" / PREFIX, prefix, SLOTS)
    filled = exports.by_template(template, prefix)
    assert filled.read_bytes() == (converted.out_dir / "fp32" / GRAPH_NAME).read_bytes()
    nodes = {it["node"] for it in json.loads((template.folder / "variables.json").read_text())}
    assert len(nodes) == 429
    assert "global_step" not in nodes


def test_constants_that_are_no_variables_stay(template: Template) -> None:
    """The anchors alone are 2034 boxes of four numbers."""
    nodes = {it["node"] for it in json.loads((template.folder / "variables.json").read_text())}
    assert not [name for name in nodes if "anchors" in name]
    assert (template.folder / "template.pb").stat().st_size > 2034 * 4 * 4


WEIGHTS = "FeatureExtractor/MobileDetEdgeTPU/Conv/weights"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("del tensors[NAME]", "float32 [3, 3, 3, 32] in the template, missing in the checkpoint"),
        ("tensors[NAME] = tensors[NAME][:1]", "[3, 3, 3, 32] in the template, float32 [1, 3, 3, 32] in the"),
        (
            "tensors[NAME] = tensors[NAME].astype(np.float64)",
            "float32 [3, 3, 3, 32] in the template, float64",
        ),
    ],
)
def test_a_variable_that_does_not_fit_is_named(
    exports: Exports, template: Template, stand_in_dir: Path, change: str, said: str
) -> None:
    prefix = exports.folder / "misfit" / PREFIX
    change = f"NAME = {WEIGHTS!r}\n{change}"
    write_altered(exports.session, stand_in_dir / "fp32" / PREFIX, prefix, change)
    with pytest.raises(ConfigError) as caught:
        exports.by_template(template, prefix)
    assert "1 of 429 variables of the graph template do not fit" in caught.value.message
    assert f"{WEIGHTS}: " in caught.value.message
    assert said in caught.value.message
    assert "--export script" in str(caught.value.tip)


def test_a_graph_of_another_checkpoint_gives_no_template(
    exports: Exports, converted: Converted, other_dir: Path
) -> None:
    exports = replace(exports, folder=exports.folder / "of another")
    exports.folder.mkdir()
    with pytest.raises(ConfigError, match="the value in the graph differs from"):
        exports.template(converted.out_dir / "fp32" / GRAPH_NAME, other_dir / "fp32" / PREFIX)


def test_a_damaged_checkpoint_is_refused(exports: Exports, template: Template, stand_in_dir: Path) -> None:
    folder = exports.folder / "damaged"
    shutil.copytree(stand_in_dir / "fp32", folder)
    (data,) = folder.glob(f"{PREFIX}.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        exports.by_template(template, folder / PREFIX)


# --- what the toolchain imports ---------------------------------------------------------------------------


WATCH = """
import atexit, os, sys

def note():
    # Packages are empty, and a module that is to be imported late has no file.
    modules = [it for name, it in sys.modules.items() if name.startswith("object_detection.")]
    imported = [it for it in modules if getattr(it, "__file__", None) and not hasattr(it, "__path__")]
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{len(imported)}\\n")

atexit.register(note)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("preload", "imports"), [(Preload.TENSORFLOW, False), (Preload.DETECTION_API, True)])
def test_filling_a_template_does_not_import_the_detection_api(
    engine: Engine,
    exports: Exports,
    template: Template,
    stand_in_dir: Path,
    workspace: Path,
    preload: Preload,
    imports: bool,
) -> None:
    folder = exports.folder / preload.name
    folder.mkdir()
    watched = folder / "watched"
    (folder / "sitecustomize.py").write_text(WATCH)
    env = {"PYTHONPATH": str(folder), "WATCHED": str(watched)}
    folders = Folders(read_only=(stand_in_dir,), writable=(workspace,))
    with engine.open(folders, env, preload=preload) as session:
        replace(exports, session=session).by_template(template, stand_in_dir / "fp32" / PREFIX)
    job, *_ = map(int, watched.read_text().split())
    assert (job > 0) == imports
