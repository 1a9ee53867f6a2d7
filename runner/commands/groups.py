"""The groups in which ``--help`` lists the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

GROUPS: Final = {
    "Convert (a TF1 checkpoint to .tflite)": (
        *("demo", "build-all", "fp32", "uint8", "convert", "batch", "worker"),
        *("fetch", "export", "toco", "export-inference-graph", "recipes"),
    ),
    "See it detect (labelled pictures, detections, accuracy)": ("detect", "evaluate", "samples"),
    "Look at files (.tflite files and frozen graphs)": ("inspect", "diff", "normalize"),
    "Evidence (what a file is, and where it comes from)": (
        *("verify", "match", "check", "prove", "recover", "explain"),
    ),
    "Toolchain (TensorFlow 1.15 in a container or a local environment)": (
        *("doctor", "image", "exec", "shell", "clean"),
    ),
}


class GroupedCommands(TyperGroup):
    """Commands that ``--help`` lists in groups."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a section for each group."""
        for title, names in GROUPS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, it.get_short_help_str(100)) for name, it in commands if it is not None]
            with formatter.section(title):
                formatter.write_dl(rows)
