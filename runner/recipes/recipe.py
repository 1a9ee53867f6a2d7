"""Load a recipe: the source of a model's checkpoint, its conversion settings, its published digests.

A recipe is a folder: ``recipe.toml`` and, per variant, a subfolder of the same name with ``tensors.tsv``
(the variables of the published checkpoint), ``pipeline.config`` and, for a quantized variant,
``quant_ranges.tsv``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tomli

from runner.errors import ConfigError, UsageError
from runner.recipes.settings import Settings, from_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.host.digests import FileDigests

RECIPES_DIR: Final = Path(__file__).resolve().parent / "catalog"
DEFAULT_RECIPE: Final = "mobiledet_edgetpu"


class InferenceType(str, Enum):
    """TOCO's inference type; the values are those of its ``--inference_type`` flag."""

    FLOAT = "FLOAT"
    QUANTIZED_UINT8 = "QUANTIZED_UINT8"


@dataclass(frozen=True, kw_only=True)
class PublishedIdentity:
    """The two publicly known digests of a published ``.tflite``, whose bytes are not available."""

    md5: str
    git_blob: str
    url: str

    def is_of(self, digests: FileDigests) -> bool:
        """Do both digests of the published file match?"""
        return (digests.md5, digests.git_blob) == (self.md5, self.git_blob)


@dataclass(frozen=True, kw_only=True)
class GraphDifference:
    """A known difference between the inference graph of a tensorflow/models commit and the published graph.

    ``excerpt`` is a file of the recipe with the published nodes; inserting them gives the published graph.
    """

    models_commit: str
    excerpt: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant of a model: how it is converted, and the digests of the published results."""

    name: str
    data_dir: Path
    inference_type: InferenceType
    mean_value: float | None
    std_value: float | None
    file_name: str
    copy_name: str
    published: PublishedIdentity | None
    published_meta_graph_sha256: str | None
    published_pipeline_config_git_blob: str | None

    @property
    def is_quantized(self) -> bool:
        """Does TOCO need quantization ranges from the graph?"""
        return self.inference_type is InferenceType.QUANTIZED_UINT8

    @property
    def raw_name(self) -> str:
        """The name of TOCO's output, before its key order is normalized."""
        return f"{Path(self.file_name).stem}.raw.tflite"

    @property
    def tensor_table(self) -> Path:
        """The variables of the published checkpoint: name, dtype, shape, masked CRC-32C."""
        return self.data_dir / "tensors.tsv"


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The structure that every file of a model has, independent of its weights.

    ``post_processing`` holds the operator's options, except those that follow from the recipe's settings.
    """

    tensors: int
    operators: Mapping[str, int]
    post_processing: Mapping[str, bool | int | float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and its variants. Without a structure, its files can only be identified by their digests."""

    name: str
    data_dir: Path
    title: str
    archive_url: str
    checkpoint_prefix: str
    input_array: str
    input_shape: tuple[int, ...] | None
    """NHWC; None if it has to be read from the pipeline config."""
    output_arrays: tuple[str, ...]
    settings: Settings
    """The settings with which the published files were made."""
    inference_graph_config_override: str
    graph_differences: tuple[GraphDifference, ...]
    structure: Structure | None
    variants: Mapping[str, Variant]

    def variant(self, name: str) -> Variant:
        """Return a variant by its name.

        Raises:
            UsageError: there is none with this name.
        """
        if name not in self.variants:
            raise UsageError(
                f"{self.name} has no variant {name!r}", tip=f"one of: {', '.join(self.variants)}"
            )
        return self.variants[name]


@cache
def load_recipe(name: str = DEFAULT_RECIPE) -> Recipe:
    """Read a recipe that ships with the runner.

    Raises:
        ConfigError: there is no such recipe, or one of its keys is missing or misspelt.
    """
    folder = RECIPES_DIR / name
    try:
        table = tomli.loads((folder / "recipe.toml").read_text("utf-8"))
    except FileNotFoundError as problem:
        known = ", ".join(sorted(path.name for path in RECIPES_DIR.iterdir() if path.is_dir()))
        raise ConfigError(f"there is no recipe {name!r}", tip=f"one of: {known}") from problem
    except tomli.TOMLDecodeError as problem:
        raise ConfigError(f"{folder / 'recipe.toml'}: {problem}") from problem
    try:
        return _recipe(table, folder)
    except (KeyError, TypeError, ValueError) as problem:
        raise ConfigError(
            f"{folder / 'recipe.toml'}: a key is missing, misspelt or of the wrong kind: {problem}"
        ) from problem


def _recipe(table: dict[str, Any], folder: Path) -> Recipe:
    rest = dict(table)
    variants = {name: _variant(name, entry, folder / name) for name, entry in rest.pop("variants").items()}
    structure = rest.pop("structure", None)
    return Recipe(
        **{
            **rest,
            "data_dir": folder,
            "input_shape": tuple(rest["input_shape"]) if "input_shape" in rest else None,
            "output_arrays": tuple(rest["output_arrays"]),
            "settings": from_table(rest["settings"]),
            "graph_differences": tuple(GraphDifference(**it) for it in rest.get("graph_differences", ())),
            "structure": Structure(**structure) if structure is not None else None,
            "variants": variants,
        }
    )


def _variant(name: str, entry: dict[str, Any], data_dir: Path) -> Variant:
    rest = dict(entry)
    url = rest.pop("published_url", None)
    published = (
        PublishedIdentity(md5=rest.pop("published_md5"), git_blob=rest.pop("published_git_blob"), url=url)
        if url is not None
        else None
    )
    return Variant(
        name=name,
        data_dir=data_dir,
        inference_type=InferenceType(rest.pop("inference_type")),
        mean_value=rest.pop("mean_value", None),
        std_value=rest.pop("std_value", None),
        published=published,
        published_meta_graph_sha256=rest.pop("published_meta_graph_sha256", None),
        published_pipeline_config_git_blob=rest.pop("published_pipeline_config_git_blob", None),
        **rest,
    )
