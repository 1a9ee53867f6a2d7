"""Two TOCOs and two dialects: `match` finds the one that made a file; conversions with the second one."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from runner.engines.base import Folders
from runner.engines.persistent import PersistentEngine
from runner.host.cache_dir import cache_dir
from runner.host.digests import digest_file
from runner.proof.match import MatchReport, MatchRequest, match
from runner.recipes.recipe import DEFAULT_TOOLCHAIN, Dialect
from runner.scripts.run import ScriptOptions
from runner.tflite.key_orders import is_possible, read_post_process_options, replace_options
from runner.tflite.model import read_model_file
from runner.toolchain.catalog import CATALOG, load_toolchain
from runner.toolchain.pins import DOCKERFILE, MODELS_PIN_FILE, PROJECT_ROOT, PYTHON_PIN_FILE
from tests.altered import with_other_weight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from tests.integration.conftest import Converted, Program

pytestmark = pytest.mark.any_engine

SECOND = "tf2.3"
TOOLCHAINS = (DEFAULT_TOOLCHAIN, SECOND)
OUTPUTS = ",".join(f"TFLite_Detection_PostProcess{suffix}" for suffix in ("", ":1", ":2", ":3"))
ENDS = (
    "--input_shapes=1,320,320,3",
    "--input_arrays=normalized_input_image_tensor",
    f"--output_arrays={OUTPUTS}",
    "--allow_custom_ops",
)
QUANTIZED = ("--inference_type=QUANTIZED_UINT8", "--mean_values=128")
COMMANDS = {
    Dialect.NATIVE: ("toco", "--input_file", "--std_values=128"),
    Dialect.TFLITE_CONVERT: ("tflite_convert", "--graph_def_file", "--std_dev_values=128"),
}


@dataclass(frozen=True, kw_only=True)
class Tocos:
    """Both toolchains, with their sessions open, and the graphs of the stand-in."""

    engine: PersistentEngine
    options: ScriptOptions
    graphs: Path
    made: Path
    sessions: dict[str, Session]

    def match(self, file: Path, variant: str) -> MatchReport:
        return match(self.engine, MatchRequest(file=file, graph=self.graph(variant), options=self.options))

    def graph(self, variant: str) -> Path:
        return self.graphs / variant / "tflite_graph.pb"

    def make(
        self, toolchain: str, dialect: Dialect, variant: str, run: int, more: tuple[str, ...] = ()
    ) -> Path:
        """Convert with the command of this dialect and its defaults."""
        command, graph_flag, deviation = COMMANDS[dialect]
        made = self.made / f"{toolchain}-{dialect.value}-{variant}-{run}.tflite"
        if dialect is Dialect.TFLITE_CONVERT:
            more = (*load_toolchain(toolchain).tflite_convert_flags, *more)
        quantized = (*QUANTIZED, deviation) if variant == "uint8" else ()
        ends = (f"{graph_flag}={self.graph(variant)}", f"--output_file={made}", *ENDS)
        done = self.sessions[toolchain].run(command, *more, *ends, *quantized)
        assert done.exit_code == 0, done.stderr
        return made


@pytest.fixture(scope="module")
def second(engine: Engine) -> Engine:
    """The engine with the second toolchain, which is built if it does not exist."""
    other = engine.with_toolchain(SECOND)
    other.prepare()
    return other


@pytest.fixture(scope="module")
def tocos(
    engine: Engine, second: Engine, converted: Converted, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tocos]:
    made = tmp_path_factory.mktemp("made")
    cache_dir().mkdir(parents=True, exist_ok=True)
    folders = Folders(read_only=(converted.out_dir,), writable=(made, cache_dir()))
    with contextlib.closing(PersistentEngine(engine, folders)) as kept:
        other = kept.with_toolchain(second.prepare().name)
        with kept.open(folders, {}) as first, other.open(folders, {}) as session:
            yield Tocos(
                engine=kept,
                options=ScriptOptions(log_dir=tmp_path_factory.mktemp("match-logs")),
                graphs=converted.out_dir,
                made=made,
                sessions={DEFAULT_TOOLCHAIN: first, SECOND: session},
            )


def named(report: MatchReport) -> list[tuple[str, Dialect]]:
    return [(attempt.toolchain, attempt.dialect) for attempt in report.matches]


@pytest.mark.parametrize(
    ("toolchain", "dialect"),
    [
        (DEFAULT_TOOLCHAIN, Dialect.NATIVE),
        pytest.param(DEFAULT_TOOLCHAIN, Dialect.TFLITE_CONVERT, marks=pytest.mark.slow),
        pytest.param(SECOND, Dialect.NATIVE, marks=pytest.mark.slow),
        (SECOND, Dialect.TFLITE_CONVERT),
    ],
)
def test_a_quantized_file_is_matched_to_its_toco_and_dialect(
    tocos: Tocos, toolchain: str, dialect: Dialect
) -> None:
    report = tocos.match(tocos.make(toolchain, dialect, "uint8", 1), "uint8")
    assert named(report) == [(toolchain, dialect)]
    assert report.key_order is not None
    assert report.key_order.is_possible


@pytest.mark.slow
@pytest.mark.parametrize("run", [2, 3])
@pytest.mark.parametrize(("toolchain", "flag"), list(itertools.product(TOOLCHAINS, ["true", "false"])))
def test_every_run_of_the_native_tool_is_matched_with_either_setting(
    tocos: Tocos, toolchain: str, flag: str, run: int
) -> None:
    more = (f"--change_concat_input_ranges={flag}",)
    file = tocos.make(toolchain, Dialect.NATIVE, "uint8", run, more)
    expected = Dialect.NATIVE if flag == "true" else Dialect.TFLITE_CONVERT
    assert named(tocos.match(file, "uint8")) == [(toolchain, expected)]


@pytest.mark.slow
@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_a_float_file_is_matched_to_both_dialects_of_its_toco(tocos: Tocos, toolchain: str) -> None:
    report = tocos.match(tocos.make(toolchain, Dialect.TFLITE_CONVERT, "fp32", 1), "fp32")
    assert named(report) == [(toolchain, dialect) for dialect in Dialect]


@pytest.mark.slow
def test_the_commands_of_a_match_make_the_file(program: Program, tocos: Tocos, tmp_path: Path) -> None:
    file = tocos.make(SECOND, Dialect.TFLITE_CONVERT, "uint8", 4)
    done = program("match", file, "--graph", tocos.graph("uint8"), "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["matches"] == [[SECOND, Dialect.TFLITE_CONVERT.value]]
    (found,) = [it for it in done.json["attempts"] if it["diff"]["differences"] == []]
    for command in found["commands"]:
        assert program(*shlex.split(command)[3:], cwd=tmp_path).exit_code == 0
    assert (tmp_path / "ordered.model.tflite").read_bytes() == file.read_bytes()
    for command in (found["native"], found["tflite_convert"]):
        made = tocos.made / "by-command.tflite"
        argv = [word.replace("=model.tflite", f"={made}") for word in shlex.split(command)]
        assert tocos.sessions[SECOND].run(*argv).exit_code == 0
        assert in_order_of(made, file) == file.read_bytes()


def in_order_of(file: Path, other: Path) -> bytes:
    model = read_model_file(file)
    options, wanted = (read_post_process_options(read_model_file(path)) for path in (file, other))
    assert options is not None
    assert wanted is not None
    return replace_options(model.content, options, wanted.order)


def test_a_file_that_none_of_them_made_is_compared_with_the_nearest(
    program: Program, tocos: Tocos, tmp_path: Path
) -> None:
    made = tocos.make(SECOND, Dialect.NATIVE, "uint8", 5, ("--change_concat_input_ranges=false",))
    weights = next(it.name for it in read_model_file(made).graphs[0].tensors if len(it.data) > 1000)
    file = tmp_path / "other.tflite"
    file.write_bytes(with_other_weight(made.read_bytes(), weights))
    done = program("match", file, "--graph", tocos.graph("uint8"))
    assert done.exit_code == 8
    assert f"the closest: TOCO of TensorFlow 2.3.4 (and 2.1.4, 2.2.3), toolchain {SECOND}" in done.stdout
    assert f"  {weights}: 1 of " in done.stdout
    assert "concat" not in done.stdout.partition("the closest")[2].partition("\n")[2]


def test_a_key_order_of_no_public_toco_is_recognised_as_that(tocos: Tocos, tmp_path: Path) -> None:
    made = tocos.make(DEFAULT_TOOLCHAIN, Dialect.NATIVE, "uint8", 6)
    options = read_post_process_options(read_model_file(made))
    assert options is not None
    order = tuple(sorted(options.order))
    assert not is_possible(order)
    file = tmp_path / "sorted.tflite"
    file.write_bytes(replace_options(made.read_bytes(), options, order))
    report = tocos.match(file, "uint8")
    assert named(report) == [(DEFAULT_TOOLCHAIN, Dialect.NATIVE)]
    assert report.key_order is not None
    assert not report.key_order.is_possible


def test_a_graph_that_does_not_belong_to_the_file_is_no_match(tocos: Tocos) -> None:
    file = tocos.make(DEFAULT_TOOLCHAIN, Dialect.NATIVE, "fp32", 2)
    assert tocos.match(file, "uint8").matches == ()


def test_a_conversion_with_the_second_toolchain_says_so_everywhere(
    program: Program, second: Engine, stand_in_dir: Path, converted: Converted, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = program("fp32", "--model-dir", stand_in_dir, "--out", out, "--toolchain", SECOND)
    assert done.exit_code == 0, done.stderr
    graphs = [folder / "fp32" / "tflite_graph.pb" for folder in (out, converted.out_dir)]
    assert digest_file(graphs[0]) == digest_file(graphs[1])  # exported by the default toolchain
    file, provenance = out / "fp32" / "mobiledet.tflite", out / "fp32" / "provenance.json"
    definition = json.loads(provenance.read_text())["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["toolchain"] == SECOND
    named = [entry.get("name") for entry in definition["resolvedDependencies"]]
    assert {"toolchain", f"toolchain {SECOND}", f"toolchains/{SECOND}/requirements.lock"} <= set(named)
    assert second.prepare().id in named
    assert definition["internalParameters"]["minRuntimeVersion"] == load_toolchain(SECOND).min_runtime_version
    assert program("verify", "--provenance", provenance).exit_code == 0
    page = program("explain", file).stdout
    assert "converted with TOCO of TensorFlow 2.3.4" in page
    assert f"--toolchain {SECOND}" in page


def test_the_second_toolchain_has_a_shell_and_is_known_to_doctor(program: Program, second: Engine) -> None:
    version = "import tensorflow; print(tensorflow.__version__)"
    done = program("exec", "--toolchain", SECOND, "--", "python", "-c", version)
    assert (done.exit_code, done.stdout.strip()) == (0, load_toolchain(SECOND).tensorflow)
    assert program("shell", "--toolchain", SECOND, stdin="toco --help | head -1\n").exit_code == 0
    image = program("image", "--toolchain", SECOND, "--json").json
    assert (image["id"], image["models_commit"]) == (second.prepare().id, None)
    findings = [it for it in program("doctor", "--json").json["findings"] if it["engine"] == second.name]
    (finding,) = [it for it in findings if it["subject"] == f"toolchain {SECOND}"]
    assert "TOCO only" in finding["text"]


@pytest.mark.slow
@pytest.mark.engine("local")
def test_a_third_toolchain_is_a_folder_and_no_python(program: Program, tocos: Tocos, tmp_path: Path) -> None:
    """A copy of the second one under another name, in a copy of the program with a cache of its own."""
    checkout = tmp_path / "checkout"
    for name in ("runner", "docker", CATALOG):
        shutil.copytree(PROJECT_ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (DOCKERFILE, MODELS_PIN_FILE, PYTHON_PIN_FILE):
        shutil.copy(PROJECT_ROOT / name, checkout)
    third = checkout / CATALOG / "third"
    shutil.copytree(checkout / CATALOG / SECOND, third)
    text = (third / "toolchain.toml").read_text()
    (third / "toolchain.toml").write_text(text.replace(f"{CATALOG}/{SECOND}/", f"{CATALOG}/third/"))
    env = {"PYTHONPATH": str(checkout), "RUNNER_CACHE_DIR": str(tmp_path / "cache")}

    def run(*arguments: str | Path) -> Any:  # noqa: ANN401 - whatever the command printed
        done = program(*arguments, "--json", env=env, cwd=checkout)
        assert done.exit_code == 0, done.stderr
        return done.json

    built = run("image", "--toolchain", "third")
    findings = program("doctor", "--json", env=env, cwd=checkout).json["findings"]
    (finding,) = [it for it in findings if it["subject"] == "toolchain third"]
    assert "TOCO only" in finding["text"]
    file = tocos.make(SECOND, Dialect.NATIVE, "uint8", 7)
    report = run("match", file, "--graph", tocos.graph("uint8"))
    assert report["matches"] == [["third", Dialect.NATIVE.value]]
    assert report["not_tried"] == [DEFAULT_TOOLCHAIN, SECOND]
    listed = run("clean", "--dry-run")["belongings"]
    assert built["id"] in [it["name"].rpartition("/")[2] for it in listed]
