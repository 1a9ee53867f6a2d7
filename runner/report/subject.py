"""Find the files that a page is about, and their frozen graphs, recipes, provenances and logs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from runner.convert.export import GRAPH_NAME
from runner.convert.plan import PROVENANCE_NAME
from runner.convert.toco import LOG_NAME
from runner.errors import UsageError
from runner.evaluation.detector import takes_pixels
from runner.evidence.check.compare import ends_of
from runner.evidence.check.files import Pair, find_pairs
from runner.evidence.provenance.find import find_provenance
from runner.evidence.provenance.own_model import recorded_own_recipe, recorded_recipe
from runner.evidence.provenance.read import read_provenance
from runner.recipes.recipe import DEFAULT_RECIPE, load_recipe
from runner.report.data import PixelRange
from runner.tflite.key_orders import POST_PROCESS, read_post_process_options
from runner.tflite.model import read_model_file
from runner.tflite.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.evidence.provenance.read import Provenance
    from runner.recipes.recipe import Recipe
    from runner.tflite.model import Graph, Model, Operator, Tensor
    from runner.tflite.summary import Summary

RAW_SUFFIX: Final = ".raw.tflite"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file that the page is about; ``pair`` is None if its frozen graph is not known."""

    name: str
    path: Path
    model: Model
    recipe: Recipe | None
    provenance: Provenance | None
    pair: Pair | None
    toco_log: Path | None

    @property
    def graph(self) -> Graph:
        """The graph of the file."""
        return self.model.graphs[0]

    @cached_property
    def summary(self) -> Summary:
        """The summary that `inspect` prints."""
        return summarise(self.model)

    @property
    def input(self) -> Tensor:
        """The input tensor, an image of shape (1, height, width, 3)."""
        return self.graph.tensors[self.graph.inputs[0]]

    @property
    def detection(self) -> Operator:
        """The detection operator, which is the last one."""
        return next(it for it in self.graph.operators if it.name == POST_PROCESS)

    @property
    def class_count(self) -> int:
        """The number of classes that the file detects, without the background."""
        options = read_post_process_options(self.model)
        assert options is not None
        return int(options.values["num_classes"])

    @property
    def pixels(self) -> PixelRange | None:
        """The real values that the input gives pixels; None for a float input."""
        ends = ends_of(self.input)
        if self.input.dtype != "uint8" or ends is None:
            return None
        return PixelRange(low=ends[0], high=ends[1], is_expected=takes_pixels(self.input))


def find_subjects(
    paths: Sequence[Path], *, recipe: str | None = None, graph: Path | None = None
) -> tuple[Subject, ...]:
    """Return the given files, and the converted files in the given folders.

    ``recipe`` is used instead of the recipes that the provenances name. ``graph`` is used instead of the
    frozen graph beside the file; it requires that there is only one file.

    Raises:
        UsageError: a file cannot be read or is not a detector, a folder contains no converted file, or
            ``graph`` is given for several files.
        IntegrityError: a file or its provenance is damaged.
    """
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    if graph is not None and len(files) != 1:
        raise UsageError(f"--graph needs one file, but there are {len(files)}", tip="name one .tflite")
    unique = tuple(dict.fromkeys(file.expanduser().resolve() for file in files))
    subjects = [_subject(file, recipe, graph) for file in unique]
    return _with_own_names(subjects)


def _files_in(folder: Path) -> list[Path]:
    """Return the final files of the conversions in a folder, or one level below."""
    provenances = [
        path
        for path in (folder / PROVENANCE_NAME, *sorted(folder.glob(f"*/{PROVENANCE_NAME}")))
        if path.is_file()
    ]
    files = [path.parent / read_provenance(path).subject.name for path in provenances]
    if not files:
        files = sorted(it for it in folder.glob("*.tflite") if not it.name.endswith(RAW_SUFFIX))
    if not files:
        raise UsageError(
            f"{folder} holds no converted file", tip="name a .tflite, or the output folder of a conversion"
        )
    return files


def _subject(file: Path, recipe_name: str | None, graph: Path | None) -> Subject:
    model = read_model_file(file)
    _require_detector(file, model)
    found = find_provenance(file)
    provenance = None if found is None else read_provenance(found)
    recipe = _recipe(file, provenance, recipe_name)
    log = None if found is None else found.with_name(LOG_NAME)
    return Subject(
        name="",
        path=file,
        model=model,
        recipe=recipe,
        provenance=provenance,
        pair=_pair(file, recipe, provenance, graph),
        toco_log=log if log is not None and log.is_file() else None,
    )


def _recipe(file: Path, provenance: Provenance | None, name: str | None) -> Recipe | None:
    if name is not None:
        return load_recipe(name)
    if provenance is None:
        return recorded_own_recipe(file)
    return recorded_recipe(provenance) or load_recipe(str(provenance.request.recipe))


def _pair(
    file: Path, recipe: Recipe | None, provenance: Provenance | None, graph: Path | None
) -> Pair | None:
    """Return the file with its frozen graph; None if no graph is beside the file or its provenance."""
    folders = [file.parent, *([] if provenance is None else [provenance.path.parent])]
    beside = next((it / GRAPH_NAME for it in folders if (it / GRAPH_NAME).is_file()), None)
    frozen = graph or beside
    if frozen is None:
        return None
    variant = None
    if provenance is not None and recipe is not None and provenance.request.variant in recipe.variants:
        variant = provenance.request.variant
    (pair,) = find_pairs(
        file, recipe or load_recipe(DEFAULT_RECIPE), graph=frozen.resolve(), variant_name=variant
    )
    return pair


def _require_detector(path: Path, model: Model) -> None:
    graph = model.graphs[0] if model.graphs else None
    is_detector = (
        graph is not None
        and len(graph.inputs) == 1
        and len(graph.outputs) == 4
        and [it.outputs for it in graph.operators if it.name == POST_PROCESS] == [graph.outputs]
    )
    tensor = graph.tensors[graph.inputs[0]] if graph is not None and graph.inputs else None
    shape = () if tensor is None else tensor.shape
    takes_image = tensor is not None and tensor.dtype in {"float32", "uint8"} and len(shape) == 4
    if not is_detector or not takes_image or shape[0] != 1 or shape[3] != 3 or min(shape) < 1:
        raise UsageError(
            f"{path} is not a detector that takes one RGB image and ends in {POST_PROCESS}",
            tip="`inspect` prints what it is",
        )


def _with_own_names(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Name the files of a page as short as possible: by variant, else by file name, else by path."""
    candidates = (
        [it.path.name if it.pair is None else it.pair.variant.name for it in subjects],
        [it.path.name for it in subjects],
        [str(it.path) for it in subjects],
    )
    names = next(it for it in candidates if len(set(it)) == len(it))
    return tuple(replace(it, name=name) for it, name in zip(subjects, names, strict=True))
