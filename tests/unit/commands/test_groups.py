"""The groups of commands: in ``--help`` and in the README."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest
import typer
from typer.testing import CliRunner

from runner import commands
from runner.cli import app
from runner.commands.groups import GROUPS
from runner.toolchain.pins import PROJECT_ROOT

LISTED = {name: listed for names in GROUPS.values() for name, listed in names.items()}


def test_every_command_is_in_one_group_with_its_module() -> None:
    assert sum(map(len, GROUPS.values())) == len(LISTED)
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(commands.__path__, "runner.commands."):
        if hasattr(imported := importlib.import_module(module.name), "app"):
            holder = typer.Typer()
            holder.add_typer(imported.app)
            found |= dict.fromkeys(typer.main.get_group(holder).commands, module.name.rpartition(".")[2])
    assert found == {name: module for name, (module, _) in LISTED.items()}


@pytest.mark.parametrize("name", LISTED)
def test_the_line_of_a_command_is_the_first_of_its_own_help(name: str) -> None:
    group = typer.main.get_group(app)
    command = group.get_command(typer.Context(group), name)
    assert command is not None
    assert command.get_short_help_str(100) == LISTED[name][1]


def test_a_wrong_name_is_refused_with_the_nearest_one() -> None:
    done = CliRunner().invoke(app, ["recepies"])
    assert done.exit_code == 2
    assert "Did you mean 'recipes'?" in done.output


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
        title.partition(" (")[0].lower(): tuple(names) for title, names in GROUPS.items()
    }
