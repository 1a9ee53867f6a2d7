"""The format of ``recipe.toml``: all keys with their types, and the conversion to a `Recipe`.

``recipe.schema.json`` is generated from these types (``tools/recipe_schema.py``), for editors that complete
and check TOML. For an unknown key, a wrong type or a missing key, the error names its position in the file.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, get_args, get_type_hints

import msgspec
import tomli
from msgspec import UNSET, Meta, UnsetType

from runner.errors import ConfigError
from runner.recipes.recipe import (
    CHECKPOINT,
    DEFAULT_TOOLCHAIN,
    INPUT_ARRAY,
    OUTPUT_ARRAYS,
    RECIPE_FILE,
    Accuracy,
    Archive,
    Dialect,
    GraphDifference,
    InferenceType,
    PublishedIdentity,
    Recipe,
    Structure,
    Variant,
)
from runner.recipes.settings import USES, Settings
from runner.recipes.status import SYNTHETIC_FILE

SCHEMA_FILE: Final = Path(__file__).with_name("recipe.schema.json")
DESCRIBED_IN: Final = "see docs/recipes.md for the format"

FileName = Annotated[str, Meta(pattern=r"^\w[\w.+-]*$")]
TfliteName = Annotated[str, Meta(pattern=r"^\w[\w.+-]*\.tflite$")]
FolderName = Annotated[str, Meta(pattern=r"^(\w[\w.+-]*(/\w[\w.+-]*)*)?$")]
FieldPath = Annotated[str, Meta(pattern=r"^\w+(\.\w+)*$", description="such as model.ssd.num_classes")]
Flag = Annotated[str, Meta(pattern=r"^--[a-z_]+(=.*)?$")]
Size = Annotated[int, Meta(ge=1)]
Md5 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Sha1 = Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table in the file; unknown keys are errors."""

    def plain(self) -> dict[str, Any]:
        """Return the values by key; nested tables are not converted."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


def _settings_table() -> type[msgspec.Struct]:
    """Return the table of the settings that change a ``.tflite``, derived from `Settings`."""
    hints = get_type_hints(Settings)
    keys = []
    for name, use in USES.items():
        if use.changes_file:
            (kind,) = {*get_args(hints[name])} - {type(None)} or {hints[name]}
            meta = Meta(ge=use.least, le=use.most, description=use.help)
            keys.append((name, Annotated[kind, meta] | UnsetType, UNSET))
    return msgspec.defstruct(
        "SettingsTable",
        keys,
        bases=(Table,),
        namespace={"__doc__": "The settings that the published file was made with."},
        frozen=True,
        kw_only=True,
    )


SettingsTable: Any = _settings_table()


class ArchiveTable(Table, frozen=True, kw_only=True):
    """The model's archive: its URL and, if known, its sha256 and size."""

    url: str | None = None
    urls: Annotated[
        tuple[str, ...],
        Meta(description="more addresses of the same archive, which are tried in this order after `url`"),
    ] = ()
    sha256: Sha256 | None = None
    size_bytes: Size | None = None


class PublishedTable(Table, frozen=True, kw_only=True):
    """The public digests and size of the published file; a file is the published one if all digests match."""

    url: str | None = None
    md5: Md5 | None = None
    git_blob: Annotated[Sha1 | None, Meta(description='sha1 of "blob <size>\\0" plus the content')] = None
    sha1: Sha1 | None = None
    sha256: Sha256 | None = None
    size_bytes: Size | None = None


class AccuracyTable(Table, frozen=True, kw_only=True):
    """A published accuracy: metric, value, dataset, and the source of the number."""

    metric: str
    value: float
    dataset: str
    source: str


class GraphDifferenceTable(Table, frozen=True, kw_only=True):
    """A known difference between the inference graph of a tensorflow/models commit and the published one."""

    models_commit: Sha1
    excerpt: Annotated[FileName, Meta(description="a file in the recipe with the published nodes")]
    difference: str


class StructureTable(Table, frozen=True, kw_only=True):
    """The structure that every file of the model has, whatever its weights."""

    tensors: Size
    operators: dict[str, Size]
    post_processing: dict[str, bool | int | float]


class VariantTable(Table, frozen=True, kw_only=True):
    """A variant of the model: its place in the archive, its conversion, what was published about it."""

    inference_type: InferenceType
    input_shape: Annotated[
        tuple[Size, Size, Size, Size] | None,
        Meta(description="NHWC; without it the shape is read from the pipeline config"),
    ] = None
    folder: Annotated[FolderName, Meta(description='the folder in the archive; "" is the top folder')] = ""
    checkpoint_prefix: FileName = "model.ckpt"
    starts_from: Annotated[
        FileName,
        Meta(description='"checkpoint", or a frozen graph in the archive, to convert without an export'),
    ] = CHECKPOINT
    settings: SettingsTable = msgspec.field(default_factory=SettingsTable)
    mean_value: Annotated[
        float | None, Meta(description="for quantized input: real = (quantized - mean) / std")
    ] = None
    std_value: Annotated[float, Meta(gt=0)] | None = None
    input_array: str = INPUT_ARRAY
    output_arrays: tuple[str, ...] = OUTPUT_ARRAYS
    config_set: Annotated[
        dict[FieldPath, bool | int | float | str],
        Meta(description="fields of the pipeline config to set, in addition to those that the settings set"),
    ] = msgspec.field(default_factory=dict)
    config_remove: Annotated[
        tuple[FieldPath, ...],
        Meta(description="fields of the pipeline config to remove, even if the detection API lacks them"),
    ] = ()
    drop_unknown_fields: Annotated[
        bool, Meta(description="remove every field of the pipeline config that the detection API lacks")
    ] = False
    export_flags: Annotated[
        tuple[Flag, ...], Meta(description="further flags of export_tflite_ssd_graph.py")
    ] = ()
    toolchain: Annotated[
        FileName, Meta(description="the toolchain that runs TOCO; the export always uses the default one")
    ] = DEFAULT_TOOLCHAIN
    dialect: Annotated[
        Dialect,
        Meta(
            description="the tool of the published command line; with tflite_convert, "
            "change_concat_input_ranges is false unless toco_flags sets it"
        ),
    ] = Dialect.NATIVE
    toco_flags: Annotated[tuple[Flag, ...], Meta(description="further flags of the native toco")] = ()
    file_name: TfliteName = "model.tflite"
    copy_name: Annotated[
        TfliteName | None, Meta(description="name of a copy to write directly to the output directory")
    ] = None
    published: PublishedTable | None = None
    published_meta_graph_sha256: Annotated[
        Sha256 | None, Meta(description="sha256 of the published inference graph's graph_def, for `prove`")
    ] = None
    published_pipeline_config_git_blob: Sha1 | None = None
    accuracy: tuple[AccuracyTable, ...] = ()
    known_defects: Annotated[
        tuple[str, ...], Meta(description="sentences; a conversion prints them as warnings")
    ] = ()
    refused: Annotated[str | None, Meta(description="why the program refuses to convert this variant")] = None


class RecipeTable(Table, frozen=True, kw_only=True):
    """A model whose checkpoint can be converted: its archive and its variants."""

    title: str
    archive: ArchiveTable | None = None
    ships_checkpoint: Annotated[
        bool, Meta(description="the checkpoints are in the recipe's folder, in the layout of an archive")
    ] = False
    labels: Annotated[
        tuple[str, ...], Meta(description="the names of the classes, starting with class 0")
    ] = ()
    models_commit: Annotated[
        Sha1 | None,
        Meta(
            description="the commit of tensorflow/models that can build the network, one of the commits in "
            "models-research-pin.txt; without this key, any of these commits is used"
        ),
    ] = None
    variants: Annotated[dict[FileName, VariantTable], Meta(min_length=1)]
    inference_graph_config_override: str = ""
    graph_differences: tuple[GraphDifferenceTable, ...] = ()
    structure: StructureTable | None = None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the format."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": RECIPE_FILE,
        **msgspec.json.schema(RecipeTable),
    }


def read_recipe_file(folder: Path) -> Recipe:
    """Read the ``recipe.toml`` in a folder.

    Raises:
        ConfigError: the file is not TOML, has an unknown key, a missing key or a wrong value, or needs a file
            that is missing; the message names the position in the file.
    """
    path = folder / RECIPE_FILE
    try:
        content = tomli.loads(path.read_text("utf-8"))
    except OSError as problem:
        raise ConfigError(f"cannot read {path}: {problem.strerror}") from problem
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not valid TOML: {problem}") from problem
    try:
        table = msgspec.convert(content, RecipeTable)
    except msgspec.ValidationError as problem:
        _refuse(path, _with_variant(content, problem), problem)
    recipe = _recipe(table, folder)
    _check(recipe, path)
    return recipe


def _recipe(table: RecipeTable, folder: Path) -> Recipe:
    structure, archive = table.structure, table.archive
    return Recipe(
        name=folder.name,
        title=table.title,
        data_dir=folder,
        archive=None if archive is None else _archive(archive),
        ships_checkpoint=table.ships_checkpoint,
        labels=table.labels,
        models_commit=table.models_commit,
        inference_graph_config_override=table.inference_graph_config_override,
        graph_differences=tuple(GraphDifference(**it.plain()) for it in table.graph_differences),
        structure=None if structure is None else Structure(**structure.plain()),
        variants={name: _variant(name, it, folder) for name, it in table.variants.items()},
    )


def _archive(table: ArchiveTable) -> Archive:
    first = () if table.url is None else (table.url,)
    return Archive(urls=(*first, *table.urls), sha256=table.sha256, size_bytes=table.size_bytes)


def _variant(name: str, table: VariantTable, folder: Path) -> Variant:
    settings, published = table.settings.plain(), table.published
    values = {
        **table.plain(),
        "settings": Settings(**{key: value for key, value in settings.items() if value is not UNSET}),
        "published": None if published is None else PublishedIdentity(**published.plain()),
        "accuracy": tuple(Accuracy(**it.plain()) for it in table.accuracy),
    }
    return Variant(name=name, data_dir=folder / name, **values)


# Checks that types cannot express.


def _check(recipe: Recipe, path: Path) -> None:
    if recipe.archive is not None and not recipe.archive.urls:
        raise ConfigError(f"{path}: $.archive: url or urls is needed", tip=DESCRIBED_IN)
    copies = [it.copy_name for it in recipe.variants.values() if it.copy_name is not None]
    for name, variant in recipe.variants.items():
        where = f"{path}: $.variants.{name}"
        mean_and_std = (variant.mean_value, variant.std_value)
        if variant.is_quantized and None in mean_and_std:
            raise ConfigError(
                f"{where}: a quantized variant needs mean_value and std_value", tip=DESCRIBED_IN
            )
        if mean_and_std.count(None) == 1:
            raise ConfigError(f"{where}: mean_value and std_value must be given together", tip=DESCRIBED_IN)
        if variant.copy_name is not None and copies.count(variant.copy_name) > 1:
            raise ConfigError(f"{where}.copy_name: another variant also has copy_name {variant.copy_name}")
        if variant.published is not None and not variant.published.digests:
            raise ConfigError(f"{where}.published: at least one digest is needed", tip=DESCRIBED_IN)
        # A folder with synthetic.toml needs no tensors.tsv, because its config only describes the model.
        folder = variant.data_dir
        holds_data = folder is not None and folder.is_dir() and not (folder / SYNTHETIC_FILE).is_file()
        if holds_data and variant.tensor_table is None and not recipe.ships_checkpoint:
            raise ConfigError(f"{path}: {folder}/tensors.tsv is missing", tip=DESCRIBED_IN)
    for number, it in enumerate(recipe.graph_differences):
        if not (path.parent / it.excerpt).is_file():
            raise ConfigError(f"{path}: $.graph_differences[{number}].excerpt: there is no file {it.excerpt}")


# Errors.


def _with_variant(content: Any, problem: msgspec.ValidationError) -> str:  # noqa: ANN401 - parsed TOML
    """Return the text of an error, with the variant's name where msgspec writes ``[...]``."""
    said = str(problem)
    if "`$.variants[...]" in said:
        errors = {name: _error_of(entry) for name, entry in content["variants"].items()}
        name, said = next((name, error) for name, error in errors.items() if error is not None)
        said = said if " - at `$" in said else f"{said} - at `$`"
        return said.replace(" - at `$", f" - at `$.variants.{name}")
    return said


def _error_of(variant: Any) -> str | None:  # noqa: ANN401 - parsed TOML
    try:
        msgspec.convert(variant, VariantTable)
    except msgspec.ValidationError as problem:
        return str(problem)
    return None


def _refuse(path: Path, said: str, problem: Exception) -> NoReturn:
    """Raise a readable error about an invalid file.

    Raises:
        ConfigError: always.
    """
    what, _, place = said.partition(" - at `")
    place = place.rstrip("`") or "$"
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if unknown:
        close = difflib.get_close_matches(unknown[1], _all_keys(), n=1)
        tip = f"did you mean {close[0]}? {DESCRIBED_IN}" if close else DESCRIBED_IN
        raise ConfigError(f"{path}: {place}.{unknown[1]}: there is no such key", tip=tip) from problem
    if missing:
        what, place = "this key is missing", f"{place}.{missing[1]}"
    raise ConfigError(f"{path}: {place}: {what[:1].lower()}{what[1:]}", tip=DESCRIBED_IN) from problem


def _all_keys() -> list[str]:
    return [name for table in (*Table.__subclasses__(), SettingsTable) for name in table.__struct_fields__]
