"""Rebuild the inference graph that MLCommons exported and compare its digest with the published one.

The graph does not depend on the weights, so a stand-in checkpoint with random weights is used. This does not
show that the published ``.tflite`` was made from that graph.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runner import console
from runner.checkpoint.files import CONFIG_NAME
from runner.convert.inference_graph import inference_graph_script
from runner.convert.stand_in import make_stand_in
from runner.engines.base import Folders
from runner.errors import ConfigError
from runner.host.cache_dir import cache_dir
from runner.scripts.parallel import run_together
from runner.scripts.run import run_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.engines.base import Engine, Session, Toolchain
    from runner.recipes.recipe import GraphDifference, Recipe, Variant
    from runner.scripts.run import ScriptOptions

MEANING: Final = (
    "This shows that the toolchain rebuilds the inference graph and the pipeline.config that MLCommons "
    "exported, whatever the weights. It does not show that their .tflite files were made from these."
)


class Match(str, Enum):
    """The result of comparing a rebuilt graph or config with the published one; used in JSON."""

    PUBLISHED = "is the published one"
    KNOWN_DIFFERENCE = "differs from the published one only in a way known for this models tree"
    DIFFERENT = "is not the published one"


@dataclass(frozen=True, kw_only=True)
class VariantProof:
    """The result for one variant; ``step`` is the JSON that the step in the toolchain printed."""

    variant: str
    graph: Match
    known_difference: str | None
    config: Match
    step: Mapping[str, Any]

    @property
    def holds(self) -> bool:
        """Whether graph and config are as published, except for a known difference of the models tree."""
        return Match.DIFFERENT not in (self.graph, self.config)

    @property
    def sentence(self) -> str:
        """The result as one sentence."""
        graph = f"the graph of {self.step['nodes']} nodes {self.graph.value}"
        if self.known_difference is not None:
            graph += f", which is expected here ({self.known_difference})"
        return f"{self.variant}: {graph}; pipeline.config {self.config.value}"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The results for all variants, and the toolchain that was used."""

    toolchain: Toolchain
    variants: tuple[VariantProof, ...]

    @property
    def holds(self) -> bool:
        """Whether the results of all variants hold."""
        return all(variant.holds for variant in self.variants)


def prove(engine: Engine, recipe: Recipe, options: ScriptOptions, *, model_dir: Path | None = None) -> Proof:
    """Rebuild the published inference graphs, by default from a stand-in, and compare their digests.

    Raises:
        EngineError, BuildError: the toolchain is not available.
        ScriptError: a toolchain script failed.
        ConfigError: the models tree cannot be used for this, or the recipe has no published graph.
    """
    data_dir = _require_published_graphs(recipe)
    toolchain = engine.prepare()
    model_dir = model_dir or make_stand_in(engine, recipe, seed=0, options=options)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prove-", dir=cache_dir()) as scratch:
        work_dir = Path(scratch).resolve()
        with engine.open(Folders(read_only=(model_dir, data_dir), writable=(work_dir,)), {}) as session:
            variants = _prove_together(session, toolchain, recipe, model_dir, work_dir, options)
    return Proof(toolchain=toolchain, variants=variants)


def _require_published_graphs(recipe: Recipe) -> Path:
    """Return the recipe's folder, after checking that each variant has a published graph digest."""
    unknown = [it.name for it in recipe.variants.values() if it.published_meta_graph_sha256 is None]
    if unknown or recipe.data_dir is None:
        raise ConfigError(
            f"there is nothing to prove: {recipe.name} {', '.join(unknown)} has no published inference graph",
            tip="use a recipe that states published_meta_graph_sha256, such as mobiledet_edgetpu",
        )
    return recipe.data_dir


def _prove_together(
    session: Session,
    toolchain: Toolchain,
    recipe: Recipe,
    model_dir: Path,
    work_dir: Path,
    options: ScriptOptions,
) -> tuple[VariantProof, ...]:
    difference = _known_difference(recipe, toolchain.models_commit)

    def prove_one(name: str) -> VariantProof:
        variant = recipe.variants[name]
        checkpoint_dir = model_dir / variant.folder
        script = inference_graph_script(
            session,
            config=checkpoint_dir / CONFIG_NAME,
            prefix=checkpoint_dir / variant.checkpoint_prefix,
            out_dir=work_dir / name,
            config_override=recipe.inference_graph_config_override,
            options=replace(options, label=name, log_dir=options.log_dir / name),
            more=_excerpt_flags(recipe, difference),
        )
        with console.step("rebuild the published inference graph", of=name):
            step = run_step(session, script)
        return judge(step, variant, difference)

    return run_together(session, prove_one, recipe.variants, memory_mib=options.memory_mib)


def _excerpt_flags(recipe: Recipe, difference: GraphDifference | None) -> tuple[str, ...]:
    if difference is None or recipe.data_dir is None:
        return ()
    return ("--published-excerpt", str(recipe.data_dir / difference.excerpt))


def judge(step: Mapping[str, Any], variant: Variant, difference: GraphDifference | None) -> VariantProof:
    """Compare a rebuilt graph and config with the published ones.

    ``difference`` is the known difference of graphs from this models tree; None if no difference is known.
    """
    published = variant.published_meta_graph_sha256
    graph = Match.DIFFERENT
    if step["graph_sha256"] == published:
        graph = Match.PUBLISHED
    elif difference is not None and step["with_excerpt"]["graph_sha256"] == published:
        graph = Match.KNOWN_DIFFERENCE
    is_config = step["pipeline_config_git_blob"] == variant.published_pipeline_config_git_blob
    return VariantProof(
        variant=variant.name,
        graph=graph,
        known_difference=difference.difference if difference and graph is Match.KNOWN_DIFFERENCE else None,
        config=Match.PUBLISHED if is_config else Match.DIFFERENT,
        step=step,
    )


def _known_difference(recipe: Recipe, models_commit: str | None) -> GraphDifference | None:
    return next((it for it in recipe.graph_differences if it.models_commit == models_commit), None)
