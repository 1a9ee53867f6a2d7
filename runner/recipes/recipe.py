"""Recipes: where a model's checkpoint comes from, how its variants are converted, what was published.

A recipe is a folder with a ``recipe.toml`` (``recipe_file.py`` and ``recipe.schema.json`` define its format).
If the variables of the published checkpoint are known, the folder also has a subfolder for each variant, with
``tensors.tsv``, ``pipeline.config`` and, for a quantized variant, ``quant_ranges.tsv``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runner.errors import ConfigError, UsageError
from runner.host.digests import files_digest, sha1_of
from runner.recipes.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.host.digests import FileDigests
    from runner.recipes.settings import Value

RECIPES_DIR: Final = Path(__file__).resolve().parent / "catalog"
RECIPE_FILE: Final = "recipe.toml"
DEFAULT_RECIPE: Final = "mobiledet_edgetpu"
DEFAULT_TOOLCHAIN: Final = "tf1.15"
CHECKPOINT: Final = "checkpoint"
"""The usual value of ``starts_from``; any other value is the file name of a frozen graph in the archive."""
INPUT_ARRAY: Final = "normalized_input_image_tensor"
OUTPUT_ARRAYS: Final = tuple(f"TFLite_Detection_PostProcess{suffix}" for suffix in ("", ":1", ":2", ":3"))
"""The inputs and outputs of the graphs that ``export_tflite_ssd_graph.py`` writes."""


class InferenceType(str, Enum):
    """TOCO's inference types; the values are those of its ``--inference_type`` flag."""

    FLOAT = "FLOAT"
    QUANTIZED_UINT8 = "QUANTIZED_UINT8"


class Dialect(str, Enum):
    """The two command lines of TOCO; they have different flags and different defaults."""

    NATIVE = "native"
    TFLITE_CONVERT = "tflite_convert"

    @property
    def changes_concat_input_ranges(self) -> bool:
        """The dialect's default for ``--change_concat_input_ranges``.

        The dialects have other different defaults, but none of them affects the file.
        """
        return self is Dialect.NATIVE


@dataclass(frozen=True, kw_only=True)
class PublishedIdentity:
    """The public digests and size of a published ``.tflite`` file; the file itself is not available."""

    url: str | None = None
    md5: str | None = None
    git_blob: str | None = None
    sha1: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def digests(self) -> Mapping[str, str]:
        """The known digests, keyed by algorithm."""
        names = ("md5", "git_blob", "sha1", "sha256")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def described(self) -> str:
        """The kinds of the known digests, as text."""
        words = {"md5": "MD5", "git_blob": "git blob id"}
        return " and ".join(words.get(name, name) for name in self.digests)

    def is_of(self, digests: FileDigests, content: Path | bytes) -> bool:
        """Return whether a file with these digests and this content has all known digests."""
        if self.size_bytes not in (None, digests.size_bytes):
            return False
        if any(getattr(digests, name) != it for name, it in self.digests.items() if name != "sha1"):
            return False
        return self.sha1 is None or self.sha1 == sha1_of(content)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A published accuracy: metric, value, dataset, and the source of the number."""

    metric: str
    value: float
    dataset: str
    source: str


@dataclass(frozen=True, kw_only=True)
class GraphDifference:
    """A known difference between the inference graph of a tensorflow/models commit and the published graph.

    ``excerpt`` is a file in the recipe with published nodes; inserting them gives the published graph.
    """

    models_commit: str
    excerpt: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The archive of a model: its URLs and, if known, its sha256 and size.

    All ``urls`` provide the same archive and are tried in order; the file name is taken from the first.
    """

    urls: tuple[str, ...]
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of a model: its folder in the archive, its conversion, what was published about it.

    ``folder`` is its folder in the archive, or "" if its files are in the top folder. ``input_shape`` is
    NHWC; if it is None, the shape is read from the pipeline config. ``toco_flags`` are flags of the native
    tool.
    """

    name: str
    data_dir: Path | None = None
    """The folder with the tables of the published checkpoint."""
    inference_type: InferenceType
    input_shape: tuple[int, ...] | None = None
    folder: str = ""
    checkpoint_prefix: str = "model.ckpt"
    starts_from: str = CHECKPOINT
    settings: Settings = field(default_factory=Settings)
    """The settings that the published file was made with."""
    mean_value: float | None = None
    std_value: float | None = None
    input_array: str = INPUT_ARRAY
    output_arrays: tuple[str, ...] = OUTPUT_ARRAYS
    config_set: Mapping[str, Value | str] = field(default_factory=dict)
    config_remove: tuple[str, ...] = ()
    drop_unknown_fields: bool = False
    is_graph_quantized: bool | None = None
    """Whether the config has a ``graph_rewriter``; None if this follows from the inference type."""
    ignore_quantization: bool = False
    """If the config has no ``graph_rewriter``, treat a quantization-aware checkpoint as a float one."""
    export_flags: tuple[str, ...] = ()
    toolchain: str = DEFAULT_TOOLCHAIN
    """The toolchain that runs TOCO; the export always uses the default one."""
    dialect: Dialect = Dialect.NATIVE
    """The dialect of the command line with which the published file was made."""
    toco_flags: tuple[str, ...] = ()
    file_name: str = "model.tflite"
    copy_name: str | None = None
    published: PublishedIdentity | None = None
    published_meta_graph_sha256: str | None = None
    published_pipeline_config_git_blob: str | None = None
    accuracy: tuple[Accuracy, ...] = ()
    known_defects: tuple[str, ...] = ()
    refused: str | None = None
    """Why the program refuses to convert this variant."""

    @property
    def is_quantized(self) -> bool:
        """Whether TOCO needs quantization ranges from the graph."""
        return self.inference_type is InferenceType.QUANTIZED_UINT8

    @property
    def all_toco_flags(self) -> tuple[str, ...]:
        """The native flags, including the dialect's defaults that they do not override."""
        flag = "--change_concat_input_ranges"
        is_given = self.dialect is Dialect.NATIVE or any(it.startswith(flag) for it in self.toco_flags)
        return self.toco_flags if is_given else (f"{flag}=false", *self.toco_flags)

    @property
    def has_quantized_graph(self) -> bool:
        """Whether the frozen graph has quantization ranges, even if TOCO does not use them."""
        return self.is_quantized if self.is_graph_quantized is None else self.is_graph_quantized

    @property
    def raw_name(self) -> str:
        """The name of TOCO's output, before its key order is normalized."""
        return f"{Path(self.file_name).stem}.raw.tflite"

    @property
    def tensor_table(self) -> Path | None:
        """The variables of the published checkpoint (name, dtype, shape, masked CRC-32C), if known."""
        table = None if self.data_dir is None else self.data_dir / "tensors.tsv"
        return table if table is not None and table.is_file() else None


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The structure that every file of a model has, whatever its weights.

    ``post_processing`` contains the operator's options, except those that follow from the recipe's settings.
    """

    tensors: int
    operators: Mapping[str, int]
    post_processing: Mapping[str, bool | int | float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and its variants.

    If ``structure`` is None, the model's files can only be identified by their digests.
    """

    name: str
    title: str
    data_dir: Path | None = None
    """The folder of the recipe; None if it was made from command-line arguments."""
    archive: Archive | None = None
    ships_checkpoint: bool = False
    """Whether the recipe ships the checkpoints: ``data_dir`` contains them in the layout of an archive."""
    labels: tuple[str, ...] = ()
    """The names of the classes that the model detects, starting with class 0."""
    models_commit: str | None = None
    """The commit of tensorflow/models that the model needs; None if any pinned commit works."""
    inference_graph_config_override: str = ""
    graph_differences: tuple[GraphDifference, ...] = ()
    structure: Structure | None = None
    variants: Mapping[str, Variant]

    @property
    def reference(self) -> str:
        """The value of ``--recipe`` that selects this recipe: the name of a shipped recipe, or a folder."""
        is_shipped = self.data_dir is None or self.data_dir.parent == RECIPES_DIR
        return self.name if is_shipped else str(self.data_dir)

    def variant(self, name: str) -> Variant:
        """Return a variant by its name.

        Raises:
            UsageError: there is no variant with this name.
        """
        if name not in self.variants:
            raise UsageError(
                f"{self.name} has no variant {name!r}", tip=f"use one of {', '.join(self.variants)}"
            )
        return self.variants[name]

    @cached_property
    def digest(self) -> str:
        """The sha256 over the files of the recipe, or an empty string if it has none."""
        if self.data_dir is None:
            return ""
        files = sorted(path for path in self.data_dir.rglob("*") if path.is_file())
        return files_digest(files, self.data_dir)

    def with_variants(self, **changes: Any) -> Recipe:  # noqa: ANN401 - fields of Variant
        """Return this recipe with the same changes in all its variants."""
        return replace(self, variants={name: replace(it, **changes) for name, it in self.variants.items()})


@cache
def load_recipe(name: str | Path = DEFAULT_RECIPE) -> Recipe:
    """Read a recipe, given the name of a shipped recipe or the folder of any other.

    Raises:
        ConfigError: there is no such recipe, or its ``recipe.toml`` is invalid.
    """
    from runner.recipes.recipe_file import read_recipe_file

    folder = RECIPES_DIR / name
    is_shipped = str(name) in recipe_names()
    if not is_shipped:
        folder = Path(name).expanduser().resolve()
        folder = folder.parent if folder.name == RECIPE_FILE else folder
    if not (folder / RECIPE_FILE).is_file():
        message = f"there is no recipe {str(name)!r}"
        if folder.is_dir():
            message = f"{folder} is not a recipe: it has no {RECIPE_FILE}"
        tip = f"name a folder with a {RECIPE_FILE}, or one of: {', '.join(recipe_names())}"
        raise ConfigError(message, tip=tip)
    return read_recipe_file(folder)


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship with the program."""
    return tuple(sorted(path.parent.name for path in RECIPES_DIR.glob(f"*/{RECIPE_FILE}")))
