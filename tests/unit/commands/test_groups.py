"""The groups of commands: in ``--help`` and in the README."""

from __future__ import annotations

import re

import typer
from typer.testing import CliRunner

from runner.cli import app
from runner.commands.groups import GROUPS
from runner.toolchain.pins import PROJECT_ROOT


def test_every_command_is_in_one_group() -> None:
    grouped = sorted(name for names in GROUPS.values() for name in names)
    assert grouped == sorted(typer.main.get_group(app).commands)


def test_help_lists_the_groups_with_a_line_for_each_command() -> None:
    printed = CliRunner().invoke(app, ["--help"]).stdout
    assert [title for title in GROUPS if f"\n{title}:\n" not in printed] == []
    unwrapped = re.sub(r"\n {8,}", " ", printed)
    for names in GROUPS.values():
        for name in names:
            assert re.search(rf"^  {name} +[A-Z].*\.$", unwrapped, flags=re.MULTILINE), name


def test_the_readme_has_the_same_groups() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \| ((?:`[a-z0-9-]+` ?)+)\|$", readme, flags=re.MULTILINE)
    assert {title: tuple(re.findall(r"`([a-z0-9-]+)`", names)) for title, names in rows} == {
        title.partition(" (")[0].lower(): names for title, names in GROUPS.items()
    }
