"""Find the recipe that a file was made with, and compare its accuracy with the published one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.errors import ConfigError
from runner.evidence.provenance.find import find_provenance
from runner.evidence.provenance.read import read_provenance
from runner.host.digests import digest_file
from runner.recipes.recipe import load_recipe, recipe_names
from runner.tflite.model import read_model_file
from runner.tflite.structure import structure_problems
from runner.tflite.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.evaluation.annotations import Annotations
    from runner.evaluation.detector import Detector
    from runner.evaluation.evaluate import Evaluation
    from runner.recipes.recipe import Recipe, Variant

VAL2017: Final = "COCO 2017 val"
"""The name of COCO's val2017 in recipes."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A recipe's variant, and how it was identified."""

    recipe: Recipe
    variant: Variant
    because: str


def find_origin(detector: Detector, recipe: str | None) -> Origin | None:
    """Return the recipe that a file was made with, or None if it is not known.

    The first of these is used: ``recipe`` if given; the recipe in the file's provenance; the recipe whose
    published file has the same digests; the default recipe, if its files have the same structure.

    Raises:
        ConfigError: there is no such recipe, or it has no variant of this kind.
    """
    if recipe is not None:
        return _of_recipe(detector, load_recipe(recipe))
    return _by_provenance(detector.path) or _by_digest(detector.path) or _by_structure(detector.path)


def _of_recipe(detector: Detector, recipe: Recipe) -> Origin:
    for variant in recipe.variants.values():
        if variant.is_quantized is not detector.input.is_float:
            return Origin(recipe=recipe, variant=variant, because="--recipe names this recipe")
    kind = "float" if detector.input.is_float else "quantized"
    raise ConfigError(
        f"{detector.path} is {kind}, but the recipe {recipe.name} has no {kind} variant",
        tip=f"its variants are {', '.join(recipe.variants)}",
    )


def _by_provenance(file: Path) -> Origin | None:
    found = find_provenance(file)
    if found is None:
        return None
    request = read_provenance(found).request
    try:
        recipe = load_recipe(request.recipe or "")
    except ConfigError:  # the user's own model, or a recipe that does not exist here
        return None
    variant = recipe.variants.get(request.variant) if request.is_of(recipe) else None
    return (
        None
        if variant is None
        else Origin(recipe=recipe, variant=variant, because=f"{found} names this recipe")
    )


def _by_digest(file: Path) -> Origin | None:
    digests = digest_file(file)
    for recipe in map(load_recipe, recipe_names()):
        for variant in recipe.variants.values():
            if variant.published is not None and variant.published.is_of(digests, file):
                return Origin(recipe=recipe, variant=variant, because="it is the published file")
    return None


def _by_structure(file: Path) -> Origin | None:
    recipe, summary = load_recipe(), summarise(read_model_file(file))
    for variant in recipe.variants.values():
        if not any(it.is_of_structure for it in structure_problems(summary, recipe, variant)):
            return Origin(
                recipe=recipe, variant=variant, because="it has the structure of this recipe's files"
            )
    return None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published accuracy, and how far a file's COCO AP and MLPerf mAP are from it.

    The differences are meaningful only if ``is_same_set``: the file was evaluated on the images that the
    published number refers to.
    """

    recipe: str
    variant: str
    because: str
    metric: str
    value: float
    dataset: str
    source: str
    is_same_set: bool
    coco_difference: float
    mlperf_difference: float


def compared_with_published(origin: Origin, truth: Annotations, result: Evaluation) -> Iterator[Comparison]:
    """Compare a result with each published number of the variant."""
    for it in origin.variant.accuracy:
        yield Comparison(
            recipe=origin.recipe.name,
            variant=origin.variant.name,
            because=origin.because,
            metric=it.metric,
            value=it.value,
            dataset=it.dataset,
            source=it.source,
            is_same_set=it.dataset == VAL2017 and truth.is_like_val2017,
            coco_difference=result.coco.ap - it.value,
            mlperf_difference=result.mlperf_map - it.value,
        )
