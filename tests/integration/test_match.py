"""Two TOCOs, two dialects: which one made a file, by `match`; and conversions with the second toolchain."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runner.engines.base import Folders
from runner.host.digests import digest_file
from runner.recipes.recipe import DEFAULT_TOOLCHAIN, Dialect
from runner.tflite.key_orders import is_possible, read_post_process_options, replace_options
from runner.tflite.model import read_model_file
from runner.toolchain.catalog import load_toolchain
from tests.altered import with_other_weight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from tests.integration.conftest import Converted, Finished, Program

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
COMBINATIONS = [(toolchain, dialect) for toolchain in TOOLCHAINS for dialect in Dialect]


@dataclass(frozen=True, kw_only=True)
class Tocos:
    """An open session of each toolchain on the graphs of the stand-in."""

    graphs: Path
    made: Path
    sessions: dict[str, Session]

    def graph(self, variant: str) -> Path:
        return self.graphs / variant / "tflite_graph.pb"

    def make(self, toolchain: str, dialect: Dialect, variant: str, run: int = 1) -> Path:
        """Convert as somebody would who types the command of this dialect, with its defaults."""
        command, graph_flag, deviation = COMMANDS[dialect]
        made = self.made / f"{toolchain}-{dialect.value}-{variant}-{run}.tflite"
        more = load_toolchain(toolchain).tflite_convert_flags if dialect is Dialect.TFLITE_CONVERT else ()
        quantized = (*QUANTIZED, deviation) if variant == "uint8" else ()
        ends = (f"{graph_flag}={self.graph(variant)}", f"--output_file={made}", *ENDS)
        done = self.sessions[toolchain].run(command, *more, *ends, *quantized)
        assert done.exit_code == 0, done.stderr
        return made


@pytest.fixture(scope="module")
def second(engine: Engine) -> Engine:
    """The engine with the second toolchain, which is built here if it is not there."""
    other = engine.with_toolchain(SECOND)
    other.prepare()
    return other


@pytest.fixture(scope="module")
def tocos(
    engine: Engine, second: Engine, converted: Converted, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tocos]:
    made = tmp_path_factory.mktemp("made")
    folders = Folders(read_only=(converted.out_dir,), writable=(made,))
    with engine.open(folders, {}) as first, second.open(folders, {}) as other:
        sessions = {DEFAULT_TOOLCHAIN: first, SECOND: other}
        yield Tocos(graphs=converted.out_dir, made=made, sessions=sessions)


def match(program: Program, file: Path, graph: Path, *options: str) -> Finished:
    return program("match", file, "--graph", graph, *options)


@pytest.mark.parametrize("run", [1, 2])
@pytest.mark.parametrize(("toolchain", "dialect"), COMBINATIONS)
def test_a_quantized_file_is_matched_to_its_toco_and_dialect(
    program: Program, tocos: Tocos, toolchain: str, dialect: Dialect, run: int
) -> None:
    file = tocos.make(toolchain, dialect, "uint8", run)
    done = match(program, file, tocos.graph("uint8"), "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["matches"] == [[toolchain, dialect.value]]
    assert done.json["key_order"]["is_possible"]


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_a_float_file_is_matched_to_both_dialects_of_its_toco(
    program: Program, tocos: Tocos, toolchain: str
) -> None:
    file = tocos.make(toolchain, Dialect.TFLITE_CONVERT, "fp32")
    done = match(program, file, tocos.graph("fp32"), "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["matches"] == [[toolchain, dialect.value] for dialect in Dialect]


def test_the_commands_of_a_match_make_the_file(program: Program, tocos: Tocos, tmp_path: Path) -> None:
    file = tocos.make(SECOND, Dialect.TFLITE_CONVERT, "uint8", run=3)
    (found,) = [
        attempt
        for attempt in match(program, file, tocos.graph("uint8"), "--json").json["attempts"]
        if (attempt["toolchain"], attempt["dialect"]) == (SECOND, Dialect.TFLITE_CONVERT.value)
    ]
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
    made = tocos.make(SECOND, Dialect.TFLITE_CONVERT, "uint8", run=4)
    weights = next(it.name for it in read_model_file(made).graphs[0].tensors if len(it.data) > 1000)
    file = tmp_path / "other.tflite"
    file.write_bytes(with_other_weight(made.read_bytes(), weights))
    done = match(program, file, tocos.graph("uint8"))
    assert done.exit_code == 8
    assert f"the nearest: TOCO of TensorFlow 2.3.4 (and 2.1.4, 2.2.3), toolchain {SECOND}" in done.stdout
    assert f"  {weights}: 1 of " in done.stdout
    assert "concat" not in done.stdout.partition("the nearest")[2].partition("\n")[2]


def test_a_key_order_of_no_public_toco_is_recognised_as_that(
    program: Program, tocos: Tocos, tmp_path: Path
) -> None:
    made = tocos.make(DEFAULT_TOOLCHAIN, Dialect.NATIVE, "uint8", run=5)
    options = read_post_process_options(read_model_file(made))
    assert options is not None
    order = tuple(sorted(options.order))
    assert not is_possible(order)
    file = tmp_path / "sorted.tflite"
    file.write_bytes(replace_options(made.read_bytes(), options, order))
    done = match(program, file, tocos.graph("uint8"))
    assert done.exit_code == 0, done.stderr
    assert "up to the order of the option keys, none of the 44 that a TOCO built from public" in done.stdout


def test_a_graph_that_does_not_belong_to_the_file_is_no_match(program: Program, tocos: Tocos) -> None:
    file = tocos.make(DEFAULT_TOOLCHAIN, Dialect.NATIVE, "fp32", run=2)
    assert match(program, file, tocos.graph("uint8")).exit_code == 8


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
