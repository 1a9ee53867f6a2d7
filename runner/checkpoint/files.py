"""Find a checkpoint in a model directory, and tell how it stands to the published one, tensor by tensor.

A model directory has the layout of the zoo's archive: per variant a folder with ``pipeline.config`` and the
files of the checkpoint, ``model.ckpt-400000.index`` and ``.data-…``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner import console
from runner.checkpoint.index import index_path, read_index, verify_data
from runner.download.file_kind import Content, read_head, recognise
from runner.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from runner.checkpoint.index import Bundle, TensorEntry
    from runner.recipe import Recipe, Variant

CONFIG_NAME: Final = "pipeline.config"
CHECKPOINT_FILE: Final = re.compile(r"(?P<prefix>.+?)\.(index|meta|data-\d{5}-of-\d{5})")
TF2_MARK: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"


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


@dataclass(frozen=True, kw_only=True)
class CheckpointVerdict:
    """How a checkpoint stands to the published one."""

    matching: int
    differing: tuple[str, ...]
    """Of the right dtype and shape, with other values."""
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    """What is there and what should be, in words."""
    extra: tuple[str, ...]
    """Optimizer slots and the like: normal."""
    digest: str
    """sha256 over name, dtype, shape and CRC of every tensor."""

    @property
    def fits(self) -> bool:
        """Has it all tensors, in their shapes?"""
        return not (self.missing or self.misshapen)

    @property
    def is_published(self) -> bool:
        """Has it the published values as well?"""
        return self.fits and not self.differing

    @property
    def sentence(self) -> str:
        """Say it in one line."""
        if self.is_published:
            return f"all {self.matching} tensors are the published ones{self._ignored}"
        return f"not the published weights: {self.differences}"

    @property
    def differences(self) -> str:
        """Say what is not as published, with an example of each kind."""
        total = self.matching + len(self.differing) + len(self.missing) + len(self.misshapen)
        parts = {
            "missing": self.missing,
            "of another kind": self.misshapen,
            "of other values": self.differing,
        }
        said = ", ".join(f"{len(names)} {what} {_some(names)}" for what, names in parts.items() if names)
        return f"of {total} tensors {said}{self._ignored}"

    @property
    def _ignored(self) -> str:
        return f"; {len(self.extra)} more, such as optimizer slots, do not matter" if self.extra else ""


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
        message = f"{index} is there, but {missing[0]} is missing: the tensors themselves are in that file"
        raise ConfigError(message, tip=f"copy all files of the checkpoint: {prefix.name}.*")
    return CheckpointFiles(config=config, bundle=bundle)


def check_checkpoint(bundle: Bundle, variant: Variant) -> CheckpointVerdict:
    """Compare a checkpoint with the recipe's table, after its data with its own index.

    Raises:
        IntegrityError: the checkpoint is damaged: its files do not even agree with each other.
        FileNotFoundError: it has not all its files; `find_checkpoint` says so in words.
    """
    verify_data(bundle)
    return _compare(bundle, read_tensor_table(variant.tensor_table))


def require_fit(verdict: CheckpointVerdict, prefix: Path, variant: Variant) -> None:
    """Accept a user's checkpoint: other weights are the user's business, other variables do not work.

    Raises:
        ConfigError: tensors that the variant needs are missing or of another shape or dtype.
    """
    if not verdict.fits:
        message = f"the checkpoint {prefix} does not fit the variant {variant.name}: {verdict.differences}"
        raise ConfigError(message, tip=_why_no_fit(verdict))


def tell_of_weights(verdict: CheckpointVerdict, prefix: Path, variant: Variant) -> None:
    """Say whether a checkpoint that fits has the published weights; with others, look for a mix-up."""
    if verdict.is_published:
        console.note(f"   {variant.name}: {verdict.sentence}")
        return
    console.warn(f"{prefix}: {verdict.sentence}")
    if not variant.is_quantized and any(_is_quantization_range(name) for name in verdict.extra):
        console.warn("it holds quantization ranges: is it the checkpoint of the quantized variant?")


def require_published(verdict: CheckpointVerdict, prefix: Path, variant: Variant) -> None:
    """Accept our own download, which has to be what was published.

    Raises:
        IntegrityError: it is not.
    """
    if not verdict.is_published:
        message = f"the checkpoint {prefix.name} of {variant.name}: {verdict.sentence}"
        raise IntegrityError(message)
    console.note(f"   {variant.name}: {verdict.sentence}")


def read_tensor_table(path: Path) -> Mapping[str, tuple[str, tuple[int, ...], int]]:
    """Read a recipe's table of variables: name to dtype, shape and masked CRC-32C."""
    table = {}
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, dtype, shape, crc = line.split("\t")
            table[name] = (dtype, tuple(int(size) for size in shape.split(",") if size), int(crc, 16))
    return table


def digest_of_tensors(tensors: Iterable[TensorEntry]) -> str:
    """Digest what a checkpoint holds, however its files are cut or ordered."""
    digest = hashlib.sha256()
    for entry in sorted(tensors, key=lambda entry: entry.name):
        shape = ",".join(str(size) for size in entry.shape)
        digest.update(f"{entry.name}\t{entry.dtype}\t{shape}\t{entry.masked_crc32c:08x}\n".encode())
    return digest.hexdigest()


def _compare(bundle: Bundle, table: Mapping[str, tuple[str, tuple[int, ...], int]]) -> CheckpointVerdict:
    differing, missing, misshapen = [], [], []
    for name, (dtype, shape, crc) in table.items():
        entry = bundle.tensors.get(name)
        if entry is None:
            missing.append(name)
        elif (entry.dtype, entry.shape) != (dtype, shape):
            is_there = f"{entry.dtype} {list(entry.shape)}"
            misshapen.append(f"{name}: {is_there} instead of {dtype} {list(shape)}")
        elif entry.masked_crc32c != crc:
            differing.append(name)
    return CheckpointVerdict(
        matching=len(table) - len(differing) - len(missing) - len(misshapen),
        differing=tuple(differing),
        missing=tuple(missing),
        misshapen=tuple(misshapen),
        extra=tuple(sorted(bundle.tensors.keys() - table.keys())),
        digest=digest_of_tensors(bundle.tensors.values()),
    )


def _why_no_fit(verdict: CheckpointVerdict) -> str:
    if TF2_MARK in verdict.extra:
        return "this is a checkpoint of TensorFlow 2; the toolchain needs one written by TensorFlow 1's Saver"
    if verdict.missing and all(_is_quantization_range(name) for name in verdict.missing):
        return "this looks like the float checkpoint; the quantized variant needs the one trained with QAT"
    return "use a checkpoint of this very model; for others there are `export` and `toco`"


def _is_quantization_range(name: str) -> bool:
    return re.search(r"_quant/(min|max)$", name) is not None


def _some(names: tuple[str, ...]) -> str:
    return f"({names[0]}{', …' if len(names) > 1 else ''})"


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
        message = f"{prefix} is one file of a checkpoint, not its prefix"
        return ConfigError(message, tip=f"give the prefix that all its files share: {right}")
    if prefix.is_file() and recognise(read_head(prefix)) is not Content.BINARY:
        message = f"{prefix} is no checkpoint: it holds {recognise(read_head(prefix)).value}"
        return ConfigError(message, tip=_other_prefixes(prefix.parent))
    if prefix.is_file():
        message = f"{prefix} is a checkpoint in TensorFlow's first format (one file), which is not supported"
        return ConfigError(message, tip="load and save it with TensorFlow 1.15's tf.train.Saver")
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
