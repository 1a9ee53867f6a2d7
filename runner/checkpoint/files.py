"""Find the files of a checkpoint in a model directory.

A model directory has the layout of the zoo's archive: either ``pipeline.config`` and the checkpoint's files
``model.ckpt.index`` and ``.data-…``, or a folder with these files for each variant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.checkpoint.index import index_path, read_index
from runner.download.file_kind import Content, read_head, recognise
from runner.errors import ConfigError
from runner.recipes.recipe import CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

    from runner.checkpoint.index import Bundle
    from runner.recipes.recipe import Recipe, Variant

CONFIG_NAME: Final = "pipeline.config"
TF2_MARK: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""A variable that every object-based checkpoint of TensorFlow 2 has."""
CHECKPOINT_FILE: Final = re.compile(r"(?P<prefix>.+?)\.(index|meta|data-\d{5}-of-\d{5})")


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """The complete set of files of one checkpoint, as the export needs them."""

    config: Path
    bundle: Bundle

    @property
    def prefix(self) -> Path:
        """The common prefix of the file names."""
        return self.bundle.prefix

    @property
    def index(self) -> Path:
        """The index file."""
        return index_path(self.prefix)

    @property
    def shards(self) -> tuple[Path, ...]:
        """The data files."""
        return self.bundle.shards

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files: config, index and data files."""
        return (self.config, self.index, *self.shards)


@dataclass(frozen=True, kw_only=True)
class FrozenGraphFiles:
    """The files for a conversion that starts from a frozen graph in the archive."""

    config: Path
    graph: Path

    @property
    def prefix(self) -> Path:
        """The path of the graph; messages show it in place of a checkpoint's prefix."""
        return self.graph

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files: config and graph."""
        return (self.config, self.graph)


ModelFiles = CheckpointFiles | FrozenGraphFiles


def locate_checkpoint(model_dir: Path, recipe: Recipe, variant: Variant) -> ModelFiles:
    """Find a variant's config and checkpoint in a model directory.

    If the path is wrong, the tip of the error suggests a suitable path nearby, if there is one.

    Raises:
        ConfigError: a file or folder is missing.
        IntegrityError: the index is damaged.
    """
    folder = locate_folder(model_dir, recipe, variant)
    if variant.starts_from != CHECKPOINT:
        return _find_graph(folder / CONFIG_NAME, folder / variant.starts_from)
    return find_checkpoint(folder / CONFIG_NAME, folder / variant.checkpoint_prefix)


def locate_folder(model_dir: Path, recipe: Recipe, variant: Variant) -> Path:
    """Return the folder of a variant in a model directory.

    If the path is wrong, the tip of the error suggests a suitable path nearby, if there is one.

    Raises:
        ConfigError: this is not a model directory for the variant.
    """
    if not has_variant(model_dir, variant):
        wanted = f"folder {variant.folder}/" if variant.folder else CONFIG_NAME
        message = f"{model_dir} is not a model directory: it has no {wanted}"
        if model_dir.is_file():
            message = f"{model_dir} is a file, not a model directory"
        elif not model_dir.exists():
            message = f"the model directory {model_dir} does not exist"
        raise ConfigError(message, tip=_where_instead(model_dir, recipe, variant))
    return model_dir / variant.folder


def _find_graph(config: Path, graph: Path) -> FrozenGraphFiles:
    for path in (config, graph):
        if not path.is_file():
            raise ConfigError(f"there is no {path}", tip="get it from the model's archive")
    return FrozenGraphFiles(config=config, graph=graph)


def has_variant(model_dir: Path, variant: Variant) -> bool:
    """Return whether a folder contains a variant: the variant's subfolder, or a config if it needs none."""
    if variant.folder:
        return (model_dir / variant.folder).is_dir()
    return (model_dir / CONFIG_NAME).is_file()


def find_checkpoint(config: Path, prefix: Path) -> CheckpointFiles:
    """Find the files of the checkpoint with this prefix.

    Raises:
        ConfigError: the config, the index or a data file is missing, the prefix is invalid, or the
            checkpoint was written by TensorFlow 2.
        IntegrityError: the index is damaged.
    """
    if not config.is_file():
        message = f"{config} is a folder, not a config" if config.is_dir() else f"there is no {config}"
        raise ConfigError(message, tip="use the pipeline.config from the archive of the checkpoint")
    index = index_path(prefix)
    if not index.is_file():
        raise _no_checkpoint(prefix)
    bundle = read_index(prefix)
    if TF2_MARK in bundle.tensors:
        raise ConfigError(
            f"{prefix} is a TensorFlow 2 checkpoint, which the export script of TensorFlow 1.15 cannot read",
            tip="use a checkpoint that TensorFlow 1's Saver wrote; TensorFlow 2 models are converted with "
            "export_tflite_graph_tf2.py and tf.lite.TFLiteConverter of TensorFlow 2",
        )
    missing = [shard for shard in bundle.shards if not shard.is_file()]
    if missing:
        raise ConfigError(
            f"{missing[0]} is missing; it contains tensors of {index}",
            tip=f"copy all files of the checkpoint: {prefix.name}.*",
        )
    return CheckpointFiles(config=config, bundle=bundle)


# Tips for wrong paths.


def _where_instead(model_dir: Path, recipe: Recipe, variant: Variant) -> str:
    """Return a tip for a path that is not a model directory, after searching nearby for the right one."""
    holds = dict.fromkeys(f"{it.folder}/" if it.folder else CONFIG_NAME for it in recipe.variants.values())
    right = f"--model-dir {{}} (the folder that contains {', '.join(holds)})"
    if model_dir.is_file():
        if recognise(read_head(model_dir)) in {Content.GZIP, Content.TAR, Content.ZIP}:
            return f"this is an archive: `fetch --url {model_dir}` unpacks and checks it"
        model_dir = model_dir.parent
    for folder in (model_dir, model_dir.parent):
        if has_variant(folder, variant):
            return right.format(folder)
    if not model_dir.is_dir():
        return "check the spelling; `fetch` downloads the published model, and `demo` works without it"
    inside = sorted(entry for entry in model_dir.iterdir() if has_variant(entry, variant))
    if inside:
        return right.format(inside[0])
    archives = sorted(
        entry for entry in model_dir.iterdir() if entry.name.endswith((".tar.gz", ".tgz", ".tar"))
    )
    if archives:
        return f"the folder contains an archive: `fetch --url {archives[0]}` unpacks and checks it"
    found = ", ".join(sorted(entry.name for entry in model_dir.iterdir())[:8]) or "nothing"
    below = f"{variant.folder}/" if variant.folder else ""
    wanted = f"{below}{CONFIG_NAME} and {below}{variant.checkpoint_prefix}.*"
    return f"it contains {found}; --model-dir needs {wanted}"


def _no_checkpoint(prefix: Path) -> ConfigError:
    """Return the error for a prefix that has no index."""
    message = f"there is no checkpoint {prefix}: {prefix.name}.index is missing"
    part = CHECKPOINT_FILE.fullmatch(prefix.name)
    if part:
        right = prefix.with_name(part["prefix"])
        return ConfigError(
            f"{prefix} is one file of a checkpoint, not its prefix",
            tip=f"use the prefix that all its files share: {right}",
        )
    if prefix.is_file() and recognise(read_head(prefix)) is not Content.BINARY:
        return ConfigError(
            f"{prefix} is not a checkpoint: it contains {recognise(read_head(prefix)).value}",
            tip=_other_prefixes(prefix.parent),
        )
    if prefix.is_file():
        return ConfigError(
            f"{prefix} is a checkpoint in TensorFlow's V1 format (a single file), which is not supported",
            tip="load it with TensorFlow 1.15 and save it again with tf.train.Saver",
        )
    if prefix.is_dir():
        tip = _newest_checkpoint(prefix) or _other_prefixes(prefix)
        return ConfigError(f"{prefix} is a folder, not a checkpoint prefix", tip=tip)
    return ConfigError(message, tip=_other_prefixes(prefix.parent))


def _newest_checkpoint(folder: Path) -> str | None:
    """Return a tip with the prefix in the file ``checkpoint``, which training writes."""
    try:
        named = re.search(r'^model_checkpoint_path: "(.+)"', (folder / "checkpoint").read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    prefix = None if named is None else folder / named[1].rpartition("/")[2]
    is_there = prefix is not None and index_path(prefix).is_file()
    return f"the folder's file `checkpoint` names the prefix {prefix}" if is_there else None


def _other_prefixes(folder: Path) -> str:
    if not folder.is_dir():
        return f"check the spelling: there is no folder {folder}"
    prefixes = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    if len(prefixes) == 1:
        return f"the folder has another checkpoint, with the prefix {prefixes[0]}"
    if prefixes:
        return f"use one of the prefixes in the folder: {', '.join(prefixes)}"
    return f"there is no checkpoint in {folder}; copy NAME.index and NAME.data-… into it"
