"""The command that removes what this program made outside its own folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from runner import console
from runner.commands.options import AsJson
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.maintenance.clean import Inventory

app = typer.Typer()


@app.command()
def clean(
    *,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Also remove what was fetched or made for your own recipe in FOLDER; can be repeated.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list, remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what this program made and remove it after confirmation.

    Lists images, containers, environments and caches. Nothing else is removed: no results, no base image,
    nothing that was made or tagged by others.
    """
    from runner.maintenance.clean import remove_all, take_inventory
    from runner.recipes.recipe import load_recipe, recipe_names

    inventory = take_inventory(map(load_recipe, (*recipe_names(), *(recipe or ()))))
    _print(inventory, as_json=as_json)
    if dry_run or not inventory.belongings:
        return
    if not yes:
        _ask(inventory)
    for reason in remove_all(inventory):
        console.warn(reason)


def _print(inventory: Inventory, *, as_json: bool) -> None:
    from runner.download.progress import megabytes

    if as_json:
        console.result_json(inventory)
        return
    for reason in inventory.stays:
        console.note(f"not removed: {reason}")
    for it in inventory.belongings:
        console.result(f"{megabytes(it.size_bytes):>12}  {it.kind:<11}  {it.name}")
    console.note(f"{len(inventory.belongings)} items, at most {megabytes(inventory.size_bytes)}")


def _ask(inventory: Inventory) -> None:
    """Ask the user to confirm; abort if they do not.

    Raises:
        UsageError: there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was removed: confirmation is needed, but stdin is not a terminal",
            tip="--yes removes everything listed, --dry-run only lists it",
        )
    typer.confirm(f"Remove these {len(inventory.belongings)} items?", abort=True, err=True)
