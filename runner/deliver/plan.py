"""Plan a run before anything starts: turn the user's request into a plan, which is plain data.

A plan can be printed (``--dry-run``), pickled, and run here or elsewhere. It contains every input with its
digest, every product, the commands, the folders that are mounted, and the cache key for each toolchain that
may do the work. All of these are decided here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from runner.checkpoint.compare import require_fit
from runner.checkpoint.files import locate_checkpoint
from runner.convert.model_facts import stated_facts
from runner.convert.plan import checkpoint_inputs, plan_conversion
from runner.host.mounts import check_apart, link_targets, mountable, mountable_when_made
from runner.recipes.settings import to_json
from runner.toolchain.digest import files_digest
from runner.toolchain.pins import BUNDLE, PROGRAM_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.convert.model_facts import ModelFacts
    from runner.convert.plan import ConversionPlan, Sha256Of
    from runner.recipes.recipe import Recipe
    from runner.recipes.settings import Settings

KEY_FORMAT: Final = 2


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The user's request: variants of a model, from one model directory into one output directory.

    ``toolchains`` are the digests of the toolchains that may do the work. ``with_paths`` records the folders
    of this machine in the provenance. ``force`` ignores the cache; ``overwrite`` replaces files that this
    program did not make.
    """

    recipe: Recipe
    variants: tuple[str, ...]
    model_dir: Path
    out_dir: Path
    settings: Settings
    speedups: tuple[str, ...]
    toolchains: tuple[str, ...]
    with_paths: bool = False
    force: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run. ``read_only`` are the folders that the toolchain may read but not write.

    ``keys`` holds, by variant and by toolchain digest, the cache keys that may have the result: the first is
    the plan's own key, the others have a result that includes it. ``program`` is the digest of the host
    program that made the plan.
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
        *names, provenance = (f"{conversion.variant.name}/{it}" for it in conversion.products.in_folder)
        return (*names, conversion.products.copy, provenance)


def make_plan(
    asked: Asked,
    *,
    sha256_of: Sha256Of,
    read_facts: Callable[[Path], ModelFacts],
) -> Plan:
    """Find and compare the checkpoints and plan the run, without writing files or starting a toolchain.

    ``read_facts`` reads the facts about a model from its config; it is called if the recipe does not state
    them.

    Raises:
        ConfigError: a checkpoint is missing, or does not match its variant.
        IntegrityError: a checkpoint is damaged.
        UsageError: the folders cannot be used.
    """
    recipe = asked.recipe
    model_dir = asked.model_dir.expanduser().resolve()
    files = {it: locate_checkpoint(model_dir, recipe, recipe.variants[it]) for it in asked.variants}
    model_dir = mountable(model_dir)
    out_dir = mountable_when_made(asked.out_dir)
    check_apart(out_dir, model_dir)
    program = program_digest()
    paths = {"TF_MODEL_DIR": model_dir, "TFLITE_MODEL_DIR": out_dir} if asked.with_paths else {}
    conversions = []
    for name, found in files.items():
        variant = recipe.variants[name]
        checkpoint = checkpoint_inputs(found, variant, sha256_of)
        require_fit(checkpoint.verdict, checkpoint.prefix, variant)
        facts = stated_facts(recipe, variant) or read_facts(found.config)
        conversions.append(
            plan_conversion(recipe, variant, checkpoint, facts, asked.settings, speedups=asked.speedups)
        )
    inputs = [file.path for conversion in conversions for file in conversion.checkpoint.files]
    return Plan(
        recipe=recipe.name,
        model_dir=model_dir,
        out_dir=out_dir,
        read_only=(model_dir, *link_targets(inputs, model_dir)),
        conversions=tuple(conversions),
        keys={it.variant.name: _keys(it, asked.toolchains, program, paths) for it in conversions},
        program=program,
        paths=paths,
        force=asked.force,
        overwrite=asked.overwrite,
    )


def _keys(
    conversion: ConversionPlan, toolchains: tuple[str, ...], program: str, paths: Mapping[str, Path]
) -> Mapping[str, tuple[str, ...]]:
    """Return the cache keys for each toolchain; with ``--no-check`` a checked result may be used too."""
    alike = dict.fromkeys((conversion.settings, replace(conversion.settings, check=True)))
    return {
        toolchain: tuple(
            _key(replace(conversion, settings=settings), toolchain, program, paths) for settings in alike
        )
        for toolchain in toolchains
    }


def _key(conversion: ConversionPlan, toolchain: str, program: str, paths: Mapping[str, Path]) -> str:
    """Return the cache key: a digest of everything that the products, including the provenance, depend on.

    The location of the model directory is not included, unless ``paths``, which the provenance then records,
    contains it.
    """
    checkpoint = conversion.checkpoint
    inputs = {
        "format": KEY_FORMAT,
        "toolchain": toolchain,
        "program": program,
        "recipe": conversion.recipe,
        "variant": conversion.variant.name,
        "settings": to_json(conversion.settings),
        "speedups": conversion.speedups,
        "commands": conversion.commands.all,
        "files": {file.name: file.sha256 for file in checkpoint.files},
        "origin": str(checkpoint.origin),
        "paths": {name: str(folder) for name, folder in paths.items()},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def program_digest(root: Path = PROGRAM_ROOT) -> str:
    """Return the sha256 of the host program, which writes the final bytes and the provenance.

    It is the same for a checkout and an installed program; the toolchain has a digest of its own.
    """
    files = (path for path in (root / "runner").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return files_digest(sorted(path for path in files if root / BUNDLE not in path.parents), root)
