"""Plan a run before anything starts: turn the user's request into a plan, which is plain data.

A plan can be printed (``--dry-run``), pickled, and run here or elsewhere. It contains every input with its
digest, every product, the commands, the folders to mount, and the cache key for each toolchain that may do
the work. All of this is decided here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runner.checkpoint.compare import require_fit
from runner.checkpoint.files import find_checkpoint, locate_checkpoint
from runner.convert.model_facts import stated_facts
from runner.convert.plan import below, checkpoint_inputs, plan_conversion
from runner.errors import ConfigError, UsageError
from runner.host.digests import files_digest
from runner.host.mounts import check_apart, link_targets, mountable, mountable_when_made
from runner.recipes.recipe import CHECKPOINT, DEFAULT_TOOLCHAIN
from runner.recipes.settings import USES, Export, option_name, to_json
from runner.toolchain.catalog import load_toolchain, toco_only_digest
from runner.toolchain.pins import BUNDLE, PROGRAM_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.checkpoint.files import ModelFiles
    from runner.convert.model_facts import ModelFacts
    from runner.convert.plan import ConversionPlan, Sha256Of
    from runner.recipes.recipe import Recipe, Variant
    from runner.recipes.settings import Settings

KEY_FORMAT: Final = 3
CATALOG: Final = "runner/recipes/catalog"


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """The user's request: variants of a model, from one model directory into one output directory.

    ``pipeline_config`` is the config of a model without a recipe; it may be outside the model directory. With
    ``is_flat``, the products are written directly to the output directory, not to a folder for each variant.
    ``choices`` are the settings that the user chose, by name; the recipe gives all others.
    ``toolchains`` are the digests of the toolchains that may do the work. ``with_paths`` records the folders
    of this machine in the provenance. ``force`` ignores the cache; ``overwrite`` allows replacing files that
    this program did not make.
    """

    recipe: Recipe
    variants: tuple[str, ...]
    model_dir: Path
    pipeline_config: Path | None = None
    out_dir: Path
    is_flat: bool = False
    choices: Mapping[str, object] = field(default_factory=dict)
    speedups: tuple[str, ...]
    toolchains: tuple[str, ...]
    with_paths: bool = False
    force: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run. ``read_only`` are the folders that the toolchain may read but not write.

    ``keys`` contains the cache keys to look up, by variant and toolchain digest. The first key is the plan's
    own. The rest are keys of requests that do more, for example a check: their results can be used too.
    ``program`` is the digest of the host program that made the plan.
    """

    recipe: str
    model_dir: Path
    out_dir: Path
    read_only: tuple[Path, ...]
    conversions: tuple[ConversionPlan, ...]
    keys: Mapping[str, Mapping[str, tuple[str, ...]]]
    program: str
    paths: Mapping[str, Path]
    force: bool
    overwrite: bool

    def products(self, conversion: ConversionPlan) -> tuple[str, ...]:
        """Return the products of a conversion, relative to the output directory, the provenance last."""
        products = conversion.products
        *names, provenance = (below(products.folder, name) for name in products.in_folder)
        copies = () if products.copy is None else (products.copy,)
        return (*names, *copies, provenance)


def make_plan(
    request: PlanRequest,
    *,
    sha256_of: Sha256Of,
    read_facts: Callable[[Path, Variant], ModelFacts],
) -> Plan:
    """Find and compare the checkpoints and plan the run, without writing files or starting a toolchain.

    If the recipe does not state the facts about a model, ``read_facts`` reads them from its config.

    Raises:
        ConfigError: a checkpoint is missing or does not match its variant, or the recipe refuses a variant.
        IntegrityError: a checkpoint is damaged.
        UsageError: the folders cannot be used, or a toolchain does not exist.
    """
    recipe = request.recipe
    for name in request.variants:
        load_toolchain(recipe.variants[name].toolchain)
        _require_convertible(recipe, recipe.variants[name], request.choices)
    model_dir = request.model_dir.expanduser().resolve()
    files = {it: _find(model_dir, recipe, recipe.variants[it], request) for it in request.variants}
    model_dir = mountable(model_dir)
    out_dir = mountable_when_made(request.out_dir)
    check_apart(out_dir, model_dir)
    program = program_digest()
    paths = {"TF_MODEL_DIR": model_dir, "TFLITE_MODEL_DIR": out_dir} if request.with_paths else {}
    conversions = []
    for name, found in files.items():
        variant = recipe.variants[name]
        checkpoint = checkpoint_inputs(found, model_dir, variant, sha256_of)
        require_fit(checkpoint.verdict, checkpoint.prefix, variant)
        facts = stated_facts(variant) or read_facts(found.config, variant)
        settings = settings_of(variant, request.choices)
        conversions.append(
            plan_conversion(
                recipe,
                variant,
                checkpoint,
                facts,
                settings,
                speedups=request.speedups,
                is_flat=request.is_flat,
            )
        )
    inputs = [file.path for conversion in conversions for file in conversion.checkpoint.files]
    return Plan(
        recipe=recipe.name,
        model_dir=model_dir,
        out_dir=out_dir,
        read_only=(model_dir, *link_targets(inputs, model_dir)),
        conversions=tuple(conversions),
        keys={it.variant.name: _keys(it, request.toolchains, program, paths) for it in conversions},
        program=program,
        paths=paths,
        force=request.force,
        overwrite=request.overwrite,
    )


def _find(model_dir: Path, recipe: Recipe, variant: Variant, request: PlanRequest) -> ModelFiles:
    if request.pipeline_config is None:
        return locate_checkpoint(model_dir, recipe, variant)
    return find_checkpoint(request.pipeline_config, model_dir / variant.checkpoint_prefix)


def settings_of(variant: Variant, choices: Mapping[str, Any]) -> Settings:
    """Return the settings of a variant, overridden by the user's choices.

    Raises:
        UsageError: ``keep_pbtxt`` with a template; only the export script writes the graph as text.
    """
    settings = replace(variant.settings, **choices)
    if settings.keep_pbtxt and settings.export is Export.TEMPLATE:
        raise UsageError(
            "--keep-pbtxt and --export template cannot be combined: only the script writes the graph as text",
            tip="use --export script",
        )
    return settings


def _require_convertible(recipe: Recipe, variant: Variant, choices: Mapping[str, object]) -> None:
    """Check that the recipe does not refuse a variant, and that the chosen settings can be applied to it.

    Raises:
        ConfigError: the recipe refuses the variant; the message contains the reason.
        UsageError: the conversion starts from a frozen graph, in which the chosen settings are already fixed.
    """
    if variant.refused is not None:
        raise ConfigError(f"{recipe.name} {variant.name} cannot be converted: {variant.refused}")
    fixed = [name for name in choices if variant.starts_from != CHECKPOINT and USES[name].changes_file]
    if fixed:
        raise UsageError(
            f"--{option_name(fixed[0])} cannot be chosen for {recipe.name} {variant.name}: the conversion "
            f"starts from {variant.starts_from}, in which this setting is fixed",
            tip="`convert` exports the checkpoint of the same archive with your own settings",
        )


def _keys(
    conversion: ConversionPlan, toolchains: tuple[str, ...], program: str, paths: Mapping[str, Path]
) -> Mapping[str, tuple[str, ...]]:
    """Return the cache keys for each toolchain; the first is the key of the conversion itself.

    A request with ``--no-check`` can also use a checked result, and one with ``--export template`` can also
    use a result of the export script.
    """
    settings = conversion.settings
    ways = dict.fromkeys((settings.export, Export.SCRIPT))
    checks = dict.fromkeys((settings.check, True))
    alike = [replace(settings, export=export, check=check) for export in ways for check in checks]
    return {
        toolchain: tuple(_key(replace(conversion, settings=it), toolchain, program, paths) for it in alike)
        for toolchain in toolchains
    }


def _key(conversion: ConversionPlan, toolchain: str, program: str, paths: Mapping[str, Path]) -> str:
    """Return the cache key: a digest of everything that the products, including the provenance, depend on.

    The location of the model directory is only included if it is in ``paths`` and therefore recorded.
    """
    checkpoint = conversion.checkpoint
    inputs: dict[str, object] = {
        "format": KEY_FORMAT,
        "toolchain": toolchain,
        "program": program,
        "recipe": (conversion.recipe, conversion.recipe_digest),
        "variant": (conversion.variant.name, conversion.variant.ignore_quantization),
        "settings": to_json(conversion.settings),
        "speedups": conversion.speedups,
        "commands": conversion.commands.all,
        "files": {file.name: file.sha256 for file in checkpoint.files},
        "origin": str(checkpoint.origin),
        "paths": {name: str(folder) for name, folder in paths.items()},
    }
    if conversion.variant.toolchain != DEFAULT_TOOLCHAIN:
        inputs["toco"] = toco_only_digest(load_toolchain(conversion.variant.toolchain))
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def program_digest(root: Path = PROGRAM_ROOT) -> str:
    """Return the sha256 of the host program, which writes the final bytes and the provenance.

    The digest is the same for a checkout and an installed program. It does not cover the toolchain, which has
    its own digest, or the recipe catalogue: the cache key contains the digest of the recipe that is used.
    """
    left_out = {root / BUNDLE, root / CATALOG}
    files = []
    for folder, folders, names in os.walk(root / "runner"):
        folders[:] = [it for it in folders if Path(folder, it) not in left_out]
        files += [Path(folder, name) for name in names if not name.endswith(".pyc")]
    return files_digest(sorted(files), root)
