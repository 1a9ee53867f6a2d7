"""The command groups of ``--help``. A command's module is only imported when the command is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

GROUPS: Final = {
    "Convert (a TF1 checkpoint to .tflite)": {
        "demo": ("convert", "Convert a stand-in checkpoint with random weights, without a download."),
        "build-all": ("convert", "Make all .tflite files of a recipe, in parallel."),
        "fp32": ("convert", "Make the float .tflite of a recipe: mobiledet.tflite."),
        "uint8": ("convert", "Make the quantized .tflite of a recipe: mobiledet_qat.tflite."),
        "convert": ("own_model", "Convert your own TF1 SSD checkpoint, in one command."),
        "batch": ("batch", "Convert many checkpoints, locally or on a cluster."),
        "worker": ("batch", "Run batch jobs that a Dask scheduler distributes."),
        "fetch": ("fetch", "Download the published checkpoints, or the published .tflite files."),
        "export": ("one_step", "Freeze any SSD checkpoint into OUT/tflite_graph.pb."),
        "toco": ("one_step", "Convert any frozen graph with TOCO."),
        "export-inference-graph": ("one_step", "Export a frozen graph and a SavedModel."),
        "recipes": ("recipes", "List, show or generate recipes: models that the program knows by name."),
    },
    "See it detect (labelled images, detections, accuracy)": {
        "detect": ("detection", "Print what the detector FILE finds in images."),
        "evaluate": ("evaluation", "Compute the accuracy of detectors on images with known boxes."),
        "samples": ("detection", "Draw labelled images for the recipe `shapes`, in COCO's format."),
    },
    "Look at files (.tflite files and frozen graphs)": {
        "report": (
            "report",
            "Write a page about converted files: what they detect, where they lose precision.",
        ),
        "inspect": ("tflite", "Print what is in FILE."),
        "diff": ("tflite", "Compare two files by content, ignoring key order."),
        "normalize": ("tflite", "Write IN to OUT with the keys of its options in the fixed order."),
    },
    "Evidence (what a file is and where it comes from)": {
        "verify": ("tflite", "Report whether FILE is the published file, or what differs."),
        "match": ("evidence", "Report which TOCO and command line produce FILE from its graph."),
        "check": ("evidence", "Check that a .tflite computes what its frozen graph computes."),
        "prove": ("evidence", "Prove that this toolchain reproduces FILE or the published graph."),
        "recover": ("evidence", "Make a TF1 checkpoint and a config whose conversion gives FILE."),
        "explain": ("evidence", "Describe what a file is, how it was made, and what is proven."),
    },
    "Toolchain (TensorFlow 1.15 in a container or a local environment)": {
        "doctor": ("doctor", "Report whether this machine is ready and, if not, what to do first."),
        "image": ("toolchain", "Build the toolchain if it does not exist and print its id."),
        "exec": ("toolchain", "Run any command in the toolchain."),
        "shell": ("toolchain", "Open a shell in the toolchain."),
        "clean": ("clean", "List what this program made and remove it after confirmation."),
    },
}
"""The groups by title; for each command, its module in ``runner.commands`` and its line in ``--help``."""

_MODULES: Final = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}


class GroupedCommands(TyperGroup):
    """Commands that ``--help`` lists in groups. A command is only imported when it is used."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - what Typer passes on
        super().__init__(**settings)
        for group in GROUPS.values():
            for name, (_, line) in group.items():
                self.add_command(TyperCommand(name, help=line, rich_markup_mode=None))

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # noqa: ARG002 - Typer's signature
        """Import the command with this name; return None if there is none."""
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"runner.commands.{_MODULES[cmd_name]}")
        holder = typer.Typer(rich_markup_mode=None)
        holder.add_typer(module.app)
        return get_group(holder).commands[cmd_name]

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """Write a section for each group."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(100)) for name in names])
