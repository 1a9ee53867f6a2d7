from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import IdentityError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_verify_names_what_is_at_hand(delivered: Path) -> None:
    done = CliRunner().invoke(app, ["verify", "--provenance", str(delivered / "provenance.json")])
    assert done.exit_code == 0, done.output
    assert "same: mobiledet.tflite (final file)" in done.stdout


def test_verify_of_a_changed_file_exits_8_and_names_it(delivered: Path) -> None:
    with (delivered / "tflite_graph.pb").open("ab") as graph:
        graph.write(b"\0")
    provenance = str(delivered / "provenance.json")
    done = CliRunner().invoke(app, ["verify", "--provenance", provenance, "--json"])
    assert isinstance(done.exception, IdentityError)
    assert "tflite_graph.pb" in done.exception.message
    report = json.loads(done.stdout)
    assert not report["ok"]
    assert {"name": "tflite_graph.pb", "role": "frozen graph", "state": "different"} in report["findings"]


def test_verify_holds_a_named_file_against_the_provenance(delivered: Path) -> None:
    raw, provenance = delivered / "mobiledet.raw.tflite", delivered / "provenance.json"
    done = CliRunner().invoke(app, ["verify", str(raw), "--provenance", str(provenance)])
    assert isinstance(done.exception, IdentityError)


def test_verify_of_nothing_is_a_usage_error() -> None:
    assert isinstance(CliRunner().invoke(app, ["verify"]).exception, UsageError)


def test_explain_prints_one_page(delivered: Path) -> None:
    done = CliRunner().invoke(app, ["explain", str(delivered)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# mobiledet.tflite")


def test_explain_prints_json(delivered: Path) -> None:
    done = CliRunner().invoke(app, ["explain", str(delivered), "--json"])
    assert json.loads(done.stdout)["title"] == "mobiledet.tflite"


def test_explain_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["explain", str(tmp_path / "none.tflite")])
    assert isinstance(done.exception, UsageError)


@pytest.mark.parametrize("command", ["prove", "check", "explain"])
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "--json" in done.stdout


def test_prove_with_an_unknown_engine_is_a_usage_error() -> None:
    done = CliRunner().invoke(app, ["prove", "--engine", "podman"])
    assert isinstance(done.exception, UsageError)


def test_check_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
