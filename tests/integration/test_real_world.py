"""The script that the workflow ``real-world.yml`` runs, on a stand-in and without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner.toolchain.pins import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.integration.conftest import Program

pytestmark = pytest.mark.any_engine


def answer(program: Program, folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Return the script's exit code and its summary; no host can be reached."""
    offline = {
        **{f"{scheme}_PROXY": "http://127.0.0.1:9" for scheme in ("HTTP", "HTTPS", "ALL")},
        "PYTHON": sys.executable,
        "RUNNER_ENGINE": program.engine_name,
        "RUNNER_CACHE_MIB": "0",
    }
    done = subprocess.run(
        [PROJECT_ROOT / ".ci/real-world", folder],
        env={**os.environ, **offline, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (folder / "evidence/summary.md").read_text()


@pytest.mark.slow
def test_other_weights_are_answered_with_no_and_the_evidence_is_kept(
    program: Program, stand_in_dir: Path, tmp_path: Path
) -> None:
    code, summary = answer(program, tmp_path, {"TF_MODEL_DIR": str(stand_in_dir)})
    assert code == 8, summary
    assert "**no: a rebuilt graph or file is not the published one**" in summary
    for line in ("| prove | 0 |", "| build-all | 0 |", "| verify-fp32 | 8 |", "| verify-uint8 | 8 |"):
        assert line in summary
    evidence = tmp_path / "evidence"
    assert json.loads((evidence / "prove.json").read_text())["holds"]
    for variant in ("fp32", "uint8"):
        assert (evidence / variant / "provenance.json").is_file()
        assert "verdict" in json.loads((evidence / f"verify-{variant}.json").read_text())


@pytest.mark.slow
def test_without_a_toolchain_the_question_is_open_and_every_step_is_tried(
    program: Program, tmp_path: Path
) -> None:
    code, summary = answer(program, tmp_path, {"RUNNER_ENGINE": "none"})
    assert code == 1, summary
    assert "**still open: a step could not run**" in summary
    for line in ("| image | 2 |", "| prove | 2 |", "| verify-uint8 | 2 |"):
        assert line in summary
    assert "error:" in (tmp_path / "evidence/prove.log").read_text()
