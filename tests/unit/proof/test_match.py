"""`match` with an engine that returns stored files, made by TOCO of TensorFlow 1.15 and 2.1."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from runner.engines.base import Availability, JobResult, Preload, Toolchain
from runner.errors import ScriptError, UsageError
from runner.proof.match import MatchRequest, conversion_of, match
from runner.proof.match_report import report_lines
from runner.recipes.recipe import DEFAULT_TOOLCHAIN, InferenceType
from runner.scripts.run import ScriptOptions
from runner.tflite.key_orders import read_post_process_options, replace_options
from runner.tflite.model import read_model
from tests.altered import with_other_options, with_other_scale
from tests.locations import TINY_DETECTOR
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.engines.base import Engine, Folders, Job, Session, Stream
    from runner.proof.match import MatchReport

SECOND = "tf2.3"
NATIVE, TFLITE_CONVERT = "native", "tflite_convert"
FALSE = "--change_concat_input_ranges=false"


def stored(name: str) -> bytes:
    return (TINY_DETECTOR / name).read_bytes()


FIRST_TOCO, SECOND_TOCO = stored("uint8.run0.tflite"), stored("uint8.tf2.1.tflite")
FILES = {
    (DEFAULT_TOOLCHAIN, NATIVE): FIRST_TOCO,
    (DEFAULT_TOOLCHAIN, TFLITE_CONVERT): with_other_scale(FIRST_TOCO, CONV_WEIGHTS),
    (SECOND, NATIVE): SECOND_TOCO,
    (SECOND, TFLITE_CONVERT): with_other_scale(SECOND_TOCO, CONV_WEIGHTS),
}


@dataclass
class StoredSession:
    """A TOCO that writes a stored file, by toolchain and dialect; without one it fails."""

    toolchain: str
    files: Mapping[tuple[str, str], bytes]

    @property
    def toolchain_dir(self) -> PurePosixPath:
        return PurePosixPath("/opt/toolchain")

    def wait_until_ready(self) -> None:
        pass

    def run_job(self, job: Job, on_line: Stream | None = None) -> JobResult:  # noqa: ARG002
        dialect = TFLITE_CONVERT if FALSE in job.argv else NATIVE
        content = self.files.get((self.toolchain, dialect))
        (output,) = [word.partition("=")[2] for word in job.argv if word.startswith("--output_file=")]
        if content is not None:
            Path(output).write_bytes(content)
        return JobResult(
            exit_code=0 if content is not None else 134,
            stdout=(),
            stderr=(),
            timed_out=False,
            out_of_memory=False,
            peak_memory_mib=0,
            wall_s=0,
            cpu_s=0,
        )

    def run(self, *argv: str) -> JobResult:
        raise NotImplementedError

    def stop(self) -> None:
        pass


@dataclass
class StoredEngine:
    """An engine whose toolchains have their files ready; ``built`` are those that need no building."""

    files: Mapping[tuple[str, str], bytes] = field(default_factory=lambda: FILES)
    built: tuple[str, ...] = (DEFAULT_TOOLCHAIN, SECOND)
    toolchain: str = DEFAULT_TOOLCHAIN
    prepared: list[str] = field(default_factory=list)
    name: str = "stored"
    is_isolated: bool = False

    def with_toolchain(self, name: str) -> Engine:
        return replace(self, toolchain=name)

    def with_models_commit(self, commit: str) -> Engine:
        raise NotImplementedError

    def availability(self) -> Availability:
        return Availability(can_run=True, reason="its files are stored")

    def is_built(self) -> bool:
        return self.toolchain in self.built

    def prepare(self) -> Toolchain:
        self.prepared.append(self.toolchain)
        return Toolchain(
            name=self.toolchain,
            engine=self.name,
            id="1",
            digest="2",
            base="3",
            models_source=None,
            models_commit=None,
        )

    @contextlib.contextmanager
    def open(
        self,
        folders: Folders,  # noqa: ARG002
        env: Mapping[str, str],  # noqa: ARG002
        *,
        preload: Preload = Preload.DETECTION_API,  # noqa: ARG002
    ) -> Iterator[Session]:
        yield StoredSession(self.toolchain, self.files)

    def attach(self, argv: tuple[str, ...], folders: Folders, env: Mapping[str, str]) -> int:
        raise NotImplementedError


@pytest.fixture
def request_for(tmp_path: Path) -> RequestFor:
    return RequestFor(tmp_path)


@dataclass(frozen=True)
class RequestFor:
    folder: Path

    def __call__(self, content: bytes, *, build_missing: bool = False) -> MatchRequest:
        file, graph = self.folder / "some.tflite", self.folder / "tflite_graph.pb"
        file.write_bytes(content)
        graph.write_bytes(b"the stored engine does not read it")
        options = ScriptOptions(log_dir=self.folder / "logs")
        return MatchRequest(file=file, graph=graph, options=options, build_missing=build_missing)


def text_of(report: MatchReport) -> str:
    return "\n".join(report_lines(report, show_all=False))


@pytest.mark.parametrize("made_by", FILES)
def test_each_combination_is_distinguished_from_the_others(
    request_for: RequestFor, made_by: tuple[str, str]
) -> None:
    report = match(StoredEngine(), request_for(FILES[made_by]))
    assert [(it.toolchain, it.dialect.value) for it in report.matches] == [made_by]
    command = {"native": "toco"}.get(made_by[1], made_by[1])
    assert f"toolchain {made_by[0]}, called as {command} (" in text_of(report)


@pytest.mark.parametrize("run", range(1, 5))
def test_every_run_of_a_toco_is_matched(request_for: RequestFor, run: int) -> None:
    report = match(StoredEngine(), request_for(stored(f"uint8.run{run}.tflite")))
    assert [(it.toolchain, it.dialect.value) for it in report.matches] == [(DEFAULT_TOOLCHAIN, NATIVE)]
    assert report.key_order is not None
    assert report.key_order.is_possible


def test_equal_dialects_match_both(request_for: RequestFor) -> None:
    files = {
        key: stored("fp32.run0.tflite" if key[0] == DEFAULT_TOOLCHAIN else "fp32.tf2.1.tflite")
        for key in FILES
    }
    report = match(StoredEngine(files), request_for(stored("fp32.run3.tflite")))
    assert [it.dialect.value for it in report.matches] == [NATIVE, TFLITE_CONVERT]
    assert {it.toolchain for it in report.matches} == {DEFAULT_TOOLCHAIN}


def test_the_nearest_and_what_differs_is_reported_where_nothing_matches(request_for: RequestFor) -> None:
    other = with_other_options(FILES[SECOND, TFLITE_CONVERT], {"nms_iou_threshold": 0.75})
    report = match(StoredEngine(), request_for(other))
    assert report.matches == ()
    assert (report.nearest.toolchain, report.nearest.dialect.value) == (SECOND, TFLITE_CONVERT)
    text = text_of(report)
    assert "the closest: TOCO of TensorFlow 2.3.4" in text
    assert "nms_iou_threshold: 0.600000024 -> 0.75" in text


def test_an_order_that_no_public_toco_writes_matches_and_is_named(request_for: RequestFor) -> None:
    options = read_post_process_options(read_model(FIRST_TOCO))
    assert options is not None
    order = tuple(sorted(options.order))
    report = match(StoredEngine(), request_for(replace_options(FIRST_TOCO, options, order)))
    assert [it.toolchain for it in report.matches] == [DEFAULT_TOOLCHAIN]
    assert report.key_order is not None
    assert not report.key_order.is_possible
    assert "except for the order of the option keys, which is none of the 44" in text_of(report)


def test_toolchains_that_are_not_built_are_left_out_and_named(request_for: RequestFor) -> None:
    engine = StoredEngine(built=(DEFAULT_TOOLCHAIN,))
    report = match(engine, request_for(SECOND_TOCO))
    assert (report.not_tried, engine.prepared) == ((SECOND,), [DEFAULT_TOOLCHAIN])
    assert f"not tried, because not built: {SECOND} (--all builds them)" in report_lines(
        report, show_all=False
    )


@pytest.mark.parametrize("build_missing", [False, True])
def test_all_builds_what_is_missing_and_something_is_always_tried(
    request_for: RequestFor, build_missing: bool
) -> None:
    engine = StoredEngine(built=())
    report = match(engine, request_for(FIRST_TOCO, build_missing=build_missing))
    assert engine.prepared == [DEFAULT_TOOLCHAIN, SECOND][: 1 + build_missing]
    assert report.matches


def test_a_toco_that_fails_is_named_beside_those_that_match(request_for: RequestFor) -> None:
    files = {key: content for key, content in FILES.items() if key[0] == DEFAULT_TOOLCHAIN}
    report = match(StoredEngine(files), request_for(FIRST_TOCO))
    assert [it.toolchain for it in report.matches] == [DEFAULT_TOOLCHAIN]
    assert "failed: toco ended with code 134" in text_of(report)


def test_if_every_toco_fails_its_error_is_that_of_the_command(request_for: RequestFor) -> None:
    with pytest.raises(ScriptError, match="toco ended with code 134"):
        match(StoredEngine({}), request_for(FIRST_TOCO))


def test_the_flag_that_is_tried_both_ways_is_refused(request_for: RequestFor) -> None:
    with pytest.raises(UsageError, match="change_concat_input_ranges is not allowed"):
        match(StoredEngine(), replace(request_for(FIRST_TOCO), more_flags=(FALSE,)))


def test_more_flags_reach_toco_and_the_commands(request_for: RequestFor) -> None:
    flag = "--drop_control_dependency=true"
    (found,) = match(StoredEngine(), replace(request_for(FIRST_TOCO), more_flags=(flag,))).matches
    assert flag in found.native
    assert found.commands[0].endswith(f" -- {flag}")


def test_a_missing_graph_is_a_usage_error(request_for: RequestFor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no frozen graph"):
        match(StoredEngine(), replace(request_for(FIRST_TOCO), graph=tmp_path / "none.pb"))


def test_the_conversion_is_read_from_the_file() -> None:
    conversion = conversion_of(read_model(FIRST_TOCO))
    assert conversion.inference_type is InferenceType.QUANTIZED_UINT8
    assert (conversion.mean_value, conversion.std_value) == (128, 128)
    assert conversion.output_arrays[1] == "TFLite_Detection_PostProcess:1"
    plain = conversion_of(read_model(stored("fp32.run0.tflite")))
    assert (plain.inference_type, plain.mean_value) == (InferenceType.FLOAT, None)
