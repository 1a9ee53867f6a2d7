"""Graph templates: graphs written by the export script, without the values of their variables.

A frozen graph depends only on its structure and the checkpoint. So a template that is filled with the tensors
of another checkpoint is the graph that the script would export from that checkpoint. The steps that make and
fill templates are ``docker/steps/make_template.py`` and ``fill_template.py``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from runner import console
from runner.errors import IntegrityError
from runner.host.digests import files_digest
from runner.scripts.run import Script, require_output, run_step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.engines.base import Session
    from runner.scripts.run import ScriptOptions

CONFIG_NAME: Final = "pipeline.config"
MADE_NAME: Final = "made.json"
IN_STEP: Final = ("template.pb", "variables.json")
FILES: Final = (*IN_STEP, CONFIG_NAME, MADE_NAME)
"""The files of a template: the files that the step writes, the edited config, a record of the origin."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template in a folder. ``config_report`` is the report of the step that edited its config.

    ``made_on`` is the time of the export, ``made_from`` the digest of the exported checkpoint's tensors.
    """

    folder: Path
    sha256: str
    """A digest of the content; it does not depend on the checkpoint that the template was made from."""
    config_report: Mapping[str, Any]
    made_on: str
    made_from: str

    @property
    def config(self) -> Path:
        """The edited config with which the script exported the graph."""
        return self.folder / CONFIG_NAME


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The comparison of a filled template with the export script's output for the same checkpoint."""

    template_sha256: str
    filled_graph_sha256: str
    exported_graph_sha256: str
    has_same_config: bool

    @property
    def passed(self) -> bool:
        """Whether graph and config are the same, byte for byte."""
        return self.has_same_config and self.filled_graph_sha256 == self.exported_graph_sha256

    @property
    def sentence(self) -> str:
        """The result as one sentence."""
        if self.passed:
            return f"the export script gives the same graph, sha256 {self.exported_graph_sha256}"
        if self.filled_graph_sha256 == self.exported_graph_sha256:
            return "the export script gives the same graph, but from a different edited config"
        return (
            f"the graph from the template has sha256 {self.filled_graph_sha256}, "
            f"but the graph from the export script has sha256 {self.exported_graph_sha256}"
        )


def read_template(folder: Path) -> Template:
    """Read the record of a template whose files are complete.

    Raises:
        IntegrityError: the record cannot be read.
    """
    try:
        made = json.loads((folder / MADE_NAME).read_text("utf-8"))
        return Template(
            folder=folder,
            sha256=_digest(folder),
            config_report=dict(made["configReport"]),
            made_on=str(made["madeOn"]),
            made_from=str(made["madeFrom"]),
        )
    except (ValueError, KeyError, TypeError) as problem:
        raise IntegrityError(f"{folder / MADE_NAME} is not a template's record: {problem}") from problem


def make_template(
    session: Session,
    folder: Path,
    *,
    graph: Path,
    config: Path,
    prefix: Path,
    config_report: Mapping[str, Any],
    made_from: str,
    options: ScriptOptions,
) -> Template:
    """Make a template from a graph that the script has just exported from this config and checkpoint.

    Raises:
        ConfigError: the graph was not exported from this checkpoint.
        ScriptError: the step failed.
        EngineError: the engine stopped during the run.
    """
    argv = [str(session.toolchain_dir / "steps" / "make_template.py"), "--frozen-graph", str(graph)]
    argv += ["--pipeline-config", str(config), "--checkpoint-prefix", str(prefix), "--output", str(folder)]
    script = Script(name="make_template.py", argv=tuple(argv), log_name="make_template.log", options=options)
    with console.step("make a graph template", of=options.label):
        run_step(session, script)
    shutil.copyfile(config, folder / CONFIG_NAME)
    made = {
        "madeOn": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "madeFrom": made_from,
        "configReport": dict(config_report),
    }
    (folder / MADE_NAME).write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    return read_template(folder)


def fill_template(
    session: Session, template: Template, prefix: Path, graph: Path, options: ScriptOptions, *, log_name: str
) -> Path:
    """Fill a template with the tensors of a checkpoint and write the graph; return the path of the log.

    The session must be able to read the folder of the template.

    Raises:
        ConfigError: a variable is missing in the checkpoint, or has another dtype or shape there.
        ScriptError, OutputMissingError: the step failed.
        EngineError: the engine stopped during the run.
    """
    argv = [str(session.toolchain_dir / "steps" / "fill_template.py"), "--template", str(template.folder)]
    argv += ["--checkpoint-prefix", str(prefix), "--output", str(graph)]
    script = Script(name="fill_template.py", argv=tuple(argv), log_name=log_name, options=options)
    with console.step("fill the graph template", of=options.label):
        run_step(session, script)
    require_output(graph, script)
    return script.log


def _digest(folder: Path) -> str:
    return files_digest([folder / name for name in (*IN_STEP, CONFIG_NAME)], folder)
