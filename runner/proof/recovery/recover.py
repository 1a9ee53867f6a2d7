"""Make a TF1 checkpoint and a config whose conversion gives a ``.tflite``."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import console
from runner.checkpoint.files import CONFIG_NAME, find_checkpoint
from runner.convert.export import config_argv, edit_config, repair_flags
from runner.convert.own_model import OWN_SETTINGS
from runner.engines.base import Folders
from runner.host.cache_dir import cache_dir
from runner.host.output_dir import OutputDir
from runner.proof.dialects import CONCAT_FLAG
from runner.proof.recovery.file_tensors import read_file_tensors
from runner.proof.recovery.source import PREFIX, find_source
from runner.recipes.settings import command_line
from runner.scripts.run import Script, run_step
from runner.tflite.model import read_model_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.engines.base import Engine
    from runner.proof.recovery.file_tensors import FileTensors
    from runner.proof.recovery.source import ModelSource
    from runner.scripts.run import ScriptOptions
    from runner.tflite.model import Model

README_NAME: Final = "README.md"


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A recovered checkpoint.

    ``not_determined`` are the variables that do not affect the file. ``approximate`` are the variables for
    which no value gives all tensors of the file exactly.
    """

    folder: Path
    source: str
    variables: int
    determined: int
    not_determined: tuple[str, ...]
    approximate: tuple[str, ...]
    ranges: Mapping[str, float] = field(repr=False)
    """The ends of the quantization ranges, keyed by variable name."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file to recover a checkpoint from: its content, its values and its config."""

    model: Model
    tensors: FileTensors
    source: ModelSource


def read_subject(file: Path, *, recipe: str | None, config: Path | None) -> Subject:
    """Read a file and find its config.

    Raises:
        UsageError: there is no such file, or no TF1 checkpoint can give it.
        ConfigError: no config fits the file.
        IntegrityError: the file is damaged.
    """
    model = read_model_file(file)
    tensors = read_file_tensors(model)
    return Subject(
        model=model, tensors=tensors, source=find_source(model, tensors, recipe=recipe, config=config)
    )


def recover(
    engine: Engine, subject: Subject, out_dir: Path, options: ScriptOptions, *, overwrite: bool
) -> Recovered:
    """Write the checkpoint, its config and a README into an output directory.

    Raises:
        ConfigError: the file has other convolutions than the model that the config describes.
        UsageError: the folder cannot be used, or contains files that would be replaced.
        ScriptError, EngineError: the step that makes the checkpoint failed.
    """
    out = OutputDir.at(out_dir)
    names = [CONFIG_NAME, README_NAME, *_checkpoint_names(PREFIX)]
    out.check_replaceable(names, ours=frozenset(), overwrite=overwrite)
    with out.work_dir() as work_dir:
        made = recover_into(engine, subject, work_dir, options)
        (work_dir / README_NAME).write_text(readme(subject, made), "utf-8")
        out.publish({name: work_dir / name for name in names})
    return replace(made, folder=out.path)


def _checkpoint_names(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{suffix}" for suffix in ("index", "data-00000-of-00001", "meta"))


def recover_into(engine: Engine, subject: Subject, folder: Path, options: ScriptOptions) -> Recovered:
    """Write the checkpoint and its config into a folder."""
    source = subject.source
    engine.prepare()
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recover-", dir=cache_dir()) as scratch:
        tensors_dir = Path(scratch).resolve()
        subject.tensors.write(tensors_dir)
        folders = Folders(read_only=(source.config, tensors_dir), writable=(folder,))
        with engine.open(folders, {}) as session:
            edit = config_argv(
                toolchain_dir=str(session.toolchain_dir),
                source=str(source.config),
                target=str(folder / CONFIG_NAME),
                settings=source.variant.settings,
                is_quantized=None,
                fields=source.variant.config_set,
                repair=repair_flags(source.variant),
            )
            edit_config(session, edit, options)
            argv = (
                str(session.toolchain_dir / "steps" / "recover.py"),
                *("--pipeline-config", str(folder / CONFIG_NAME), "--tensors", str(tensors_dir)),
                *("--output", str(folder / PREFIX)),
            )
            script = Script(name="recover.py", argv=argv, log_name="recover.log", options=options)
            with console.step("make the checkpoint", of=options.label):
                report = run_step(session, script)
    find_checkpoint(folder / CONFIG_NAME, folder / PREFIX)
    return Recovered(
        folder=folder,
        source=source.title,
        variables=report["variables"],
        determined=report["determined"],
        not_determined=tuple(report["not_determined"]),
        approximate=tuple(report["approximate"]),
        ranges=report["ranges"],
    )


def readme(subject: Subject, made: Recovered) -> str:
    """Return the README of a recovered checkpoint; it states what the checkpoint can be used for."""
    others = "".join(f"- {name}\n" for name in made.not_determined) or "- none\n"
    return f"""# A checkpoint recovered from {Path(subject.model.source).name}

It was computed from the weights, biases and quantization ranges in that file, with the config of
{made.source}. {made.determined} of its {made.variables} variables are determined by the file.

It can be used to make the file again, and to fine-tune from its folded weights. It is not the original
training state. TOCO folded every batch norm into weights and biases, so each batch norm here is the identity.
The weights of a quantized model are rounded to its quantization steps. There is no optimizer state.

The file does not determine the following variables. Of these, global_step is set to the number of training
steps in the config, and ranges are set to [0, 6]:

{others}
This command makes the file again:

    {convert_command(subject)}
"""


def convert_command(subject: Subject) -> str:
    """Return the command that converts the recovered checkpoint to the file."""
    variant = subject.source.variant
    words = ["convert", "--pipeline-config", CONFIG_NAME, "--checkpoint", PREFIX, "--out", "OUT"]
    words += command_line(variant.settings, OWN_SETTINGS, only_file_changing=True)
    if variant.is_quantized:
        words += ["--mean-value", f"{variant.mean_value:g}", "--std-value", f"{variant.std_value:g}"]
        flag = next((it for it in variant.all_toco_flags if CONCAT_FLAG in it), f"--{CONCAT_FLAG}=true")
        words += ["--", flag]
    return f"python -m runner {shlex.join(words)}"
