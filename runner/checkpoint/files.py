"""Find a checkpoint in a model directory.

A model directory has the layout of the zoo's archive: per variant a folder with ``pipeline.config`` and the
files of the checkpoint, ``model.ckpt-400000.index`` and ``.data-…``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.checkpoint.index import index_path, read_index
from runner.download.file_kind import Content, read_head, recognise
from runner.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.checkpoint.index import Bundle
    from runner.recipes.recipe import Recipe, Variant

CONFIG_NAME: Final = "pipeline.config"
CHECKPOINT_FILE: Final = re.compile(r"(?P<prefix>.+?)\.(index|meta|data-\d{5}-of-\d{5})")


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """The files of one checkpoint, all there: what the export reads."""

    config: Path
    bundle: Bundle

    @property
    def prefix(self) -> Path:
        """What their names begin with."""
        return self.bundle.prefix

    @property
    def index(self) -> Path:
        """The index."""
        return index_path(self.prefix)

    @property
    def shards(self) -> tuple[Path, ...]:
        """The data files."""
        return self.bundle.shards

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.config, self.index, *self.shards)


def locate_checkpoint(
    model_dir: Path, recipe: Recipe, variant: Variant, *, checkpoint_prefix: str | None = None
) -> CheckpointFiles:
    """Find a variant's config and checkpoint in a model directory; the tip of an error names the right place.

    Raises:
        ConfigError: something is not there, or not where it should be.
        IntegrityError: the index is damaged.
    """
    folder = model_dir / variant.name
    if not folder.is_dir():
        message = f"{model_dir} is no model directory: it has no folder {variant.name}/"
        if model_dir.is_file():
            message = f"{model_dir} is a file, not a model directory"
        elif not model_dir.exists():
            message = f"the model directory {model_dir} does not exist"
        raise ConfigError(message, tip=_where_instead(model_dir, recipe, variant))
    return find_checkpoint(folder / CONFIG_NAME, folder / (checkpoint_prefix or recipe.checkpoint_prefix))


def find_checkpoint(config: Path, prefix: Path) -> CheckpointFiles:
    """Find the files of the checkpoint with this prefix.

    Raises:
        ConfigError: the config, the index or a data file is missing, or the prefix is none.
        IntegrityError: the index is damaged.
    """
    if not config.is_file():
        message = f"{config} is a folder, not a config" if config.is_dir() else f"there is no {config}"
        raise ConfigError(message, tip="the config belongs to the checkpoint and comes in the same archive")
    index = index_path(prefix)
    if not index.is_file():
        raise _no_checkpoint(prefix)
    bundle = read_index(prefix)
    missing = [shard for shard in bundle.shards if not shard.is_file()]
    if missing:
        raise ConfigError(
            f"{index} is there, but {missing[0]} is missing: the tensors themselves are in that file",
            tip=f"copy all files of the checkpoint: {prefix.name}.*",
        )
    return CheckpointFiles(config=config, bundle=bundle)


# Where is it instead?


def _where_instead(model_dir: Path, recipe: Recipe, variant: Variant) -> str:
    """Guess what the user meant by a path that is no model directory."""
    right = f"--model-dir {{}} (the folder that holds {', '.join(f'{name}/' for name in recipe.variants)})"
    if model_dir.is_file():
        if recognise(read_head(model_dir)) in {Content.GZIP, Content.TAR, Content.ZIP}:
            return f"this is an archive: `fetch --url {model_dir}` unpacks and checks it"
        model_dir = model_dir.parent
    for folder in (model_dir, model_dir.parent):
        if (folder / variant.name).is_dir():
            return right.format(folder)
    if not model_dir.is_dir():
        return "look for a misspelling; `fetch` downloads the published model, `demo` needs none"
    inside = sorted(entry for entry in model_dir.iterdir() if (entry / variant.name).is_dir())
    if inside:
        return right.format(inside[0])
    archives = sorted(
        entry for entry in model_dir.iterdir() if entry.name.endswith((".tar.gz", ".tgz", ".tar"))
    )
    if archives:
        return f"there is an archive in it: `fetch --url {archives[0]}` unpacks and checks it"
    found = ", ".join(sorted(entry.name for entry in model_dir.iterdir())[:8]) or "nothing"
    wanted = f"{variant.name}/{CONFIG_NAME} and {variant.name}/{recipe.checkpoint_prefix}.*"
    return f"it holds {found}; --model-dir wants {wanted}"


def _no_checkpoint(prefix: Path) -> ConfigError:
    """Say what is wrong with a prefix that has no index."""
    message = f"there is no checkpoint {prefix}: {prefix.name}.index is missing"
    part = CHECKPOINT_FILE.fullmatch(prefix.name)
    if part:
        right = prefix.with_name(part["prefix"])
        return ConfigError(
            f"{prefix} is one file of a checkpoint, not its prefix",
            tip=f"give the prefix that all its files share: {right}",
        )
    if prefix.is_file() and recognise(read_head(prefix)) is not Content.BINARY:
        return ConfigError(
            f"{prefix} is no checkpoint: it holds {recognise(read_head(prefix)).value}",
            tip=_other_prefixes(prefix.parent),
        )
    if prefix.is_file():
        return ConfigError(
            f"{prefix} is a checkpoint in TensorFlow's first format (one file), which is not supported",
            tip="load and save it with TensorFlow 1.15's tf.train.Saver",
        )
    if prefix.is_dir():
        return ConfigError(f"{prefix} is a folder", tip=_other_prefixes(prefix))
    return ConfigError(message, tip=_other_prefixes(prefix.parent))


def _other_prefixes(folder: Path) -> str:
    if not folder.is_dir():
        return f"look for a misspelling: there is no folder {folder}"
    prefixes = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    if len(prefixes) == 1:
        return f"another checkpoint is there, its prefix is {prefixes[0]}"
    if prefixes:
        return f"name one of the prefixes that are there: {', '.join(prefixes)}"
    return f"there is no checkpoint at all in {folder}; copy NAME.index and NAME.data-… there"
