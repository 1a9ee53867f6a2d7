"""The Python API with the real toolchain: same bytes as the commands, one session, no output, examples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner import Runner
from runner.errors import ScriptTimeoutError
from runner.toolchain.pins import PROJECT_ROOT
from tests.conftest import ENGINE_OPTIONS
from tests.examples import examples

if TYPE_CHECKING:
    from runner.engines.base import Session
    from tests.integration.conftest import Converted

pytestmark = pytest.mark.any_engine


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CACHE_MIB", "0")


def runner_with(engine_name: str, **parameters: Any) -> Runner:  # noqa: ANN401 - those of Runner
    return Runner(engine=engine_name, base_image=ENGINE_OPTIONS.base_image, **parameters)


def kept_session(runner: Runner) -> Session | None:
    return None if runner._kept is None else runner._kept._session


def servers() -> list[int]:
    """Return the toolchain servers that this process has started and that are still running."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if parent == os.getpid() and "server/server.py" in command:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_conversions_and_a_check_in_one_session_give_the_bytes_of_the_command(
    engine_name: str, stand_in_dir: Path, converted: Converted, tmp_path: Path
) -> None:
    before = servers()
    with runner_with(engine_name, read_only=[stand_in_dir], writable=[tmp_path]) as runner:
        both = runner.convert(model_dir=stand_in_dir, out=tmp_path / "both")
        session = kept_session(runner)
        (fp32,) = runner.convert(model_dir=stand_in_dir, out=tmp_path / "one", variants="fp32")
        report = runner.check(fp32.file)[fp32.file]
        assert session is not None
        assert kept_session(runner) is session
        assert len(servers()) == len(before) + (1 if engine_name == "local" else 0)
    assert kept_session(runner) is None
    assert servers() == before
    assert report.passed
    wanted = {name: result["sha256"] for name, result in converted.results.items()}
    assert {result.variant: result.digests.sha256 for result in both} == wanted
    assert fp32.digests.sha256 == wanted["fp32"]


def test_after_a_failed_script_the_runner_goes_on(
    engine_name: str, stand_in_dir: Path, tmp_path: Path
) -> None:
    with runner_with(engine_name, timeout_s=0.1, writable=[tmp_path]) as runner:
        for _ in range(2):
            with pytest.raises(ScriptTimeoutError):
                runner.convert(model_dir=stand_in_dir, out=tmp_path / "out", variants="fp32")


@pytest.mark.slow
def test_the_examples_of_the_page_run_and_print_nothing_else(
    engine_name: str, stand_in_dir: Path, converted: Converted, tmp_path: Path
) -> None:
    (tmp_path / "model").symlink_to(stand_in_dir)
    (tmp_path / "sweep").mkdir()
    chosen = f'engine="{engine_name}", base_image={ENGINE_OPTIONS.base_image!r}'
    printed = []
    for code in examples(with_toolchain=True):
        assert code.count('engine="auto"') == 1
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code.replace('engine="auto"', chosen)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout)
    assert all(result["sha256"] in printed[0] for result in converted.results.values())
    assert printed[1] == "{'mobiledet.tflite': True}\n"
