"""`--overwrite` replaces files; `--force` is another name for it where there is no cache."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from runner.cli import app


def help_of(command: str) -> str:
    result = CliRunner().invoke(app, [command, "--help"], catch_exceptions=False)
    return " ".join(result.stdout.split())


@pytest.mark.parametrize("command", ["fp32", "uint8", "build-all", "demo"])
def test_what_uses_the_cache_has_both_options(command: str) -> None:
    assert "--force Convert again" in help_of(command)
    assert "--overwrite Replace files in --out" in help_of(command)


@pytest.mark.parametrize("command", ["export", "toco", "normalize", "verify"])
def test_where_there_is_no_cache_they_are_one(command: str) -> None:
    assert "--overwrite, --force Replace existing output files" in help_of(command)
