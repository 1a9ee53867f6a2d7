"""Decide a run before anything starts: what the user asked for in, a plan out that is plain data.

A plan can be printed (``--dry-run``), pickled, and run here or elsewhere. It names every input with its
digest, every product, the commands, the folders that the toolchain sees, and the cache key for each toolchain
that may do the work. Nothing else decides any of these.
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
from runner.host.mounts import check_apart, link_targets, mountable
from runner.recipes.settings import to_json
from runner.toolchain.digest import files_digest
from runner.toolchain.pins import PROJECT_ROOT

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
    """What the user asked for: some variants of a model, from one model directory into one output directory.

    ``toolchains`` are the digests of those that may do the work. ``with_paths`` has the provenance name this
    machine's folders; ``force`` converts again what the cache has and replaces files that are not ours.
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, decided. ``read_only`` is what the toolchain sees beside its work folder, which it may write to.

    ``keys`` holds, by variant and by the digest of a toolchain, the cache keys under which the result may be:
    the first is its own; another's result holds all that is wanted and more. ``program`` is the digest of the
    host program that made the plan.
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

    def products(self, conversion: ConversionPlan) -> tuple[str, ...]:
        """The names, below the output directory, of what a conversion leaves there, the provenance last."""
        *names, provenance = (f"{conversion.variant.name}/{it}" for it in conversion.products.in_folder)
        return (*names, conversion.products.copy, provenance)


def make_plan(
    asked: Asked,
    *,
    sha256_of: Sha256Of,
    read_facts: Callable[[Path], ModelFacts],
) -> Plan:
    """Find and compare the checkpoints, and decide the rest. Nothing is written and no toolchain is started.

    ``read_facts`` reads the facts about a model from its config, where the recipe does not state them.

    Raises:
        ConfigError: a checkpoint is not there, or does not fit its variant.
        IntegrityError: a checkpoint is damaged.
        UsageError: the folders cannot be used.
    """
    recipe = asked.recipe
    model_dir = asked.model_dir.expanduser().resolve()
    files = {it: locate_checkpoint(model_dir, recipe, recipe.variants[it]) for it in asked.variants}
    model_dir = mountable(model_dir)
    out_dir = asked.out_dir.expanduser().resolve()
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
    )


def _keys(
    conversion: ConversionPlan, toolchains: tuple[str, ...], program: str, paths: Mapping[str, Path]
) -> Mapping[str, tuple[str, ...]]:
    """Return the keys for each toolchain; a result that was checked as well is as good."""
    alike = dict.fromkeys((conversion.settings, replace(conversion.settings, check=True)))
    return {
        toolchain: tuple(
            _key(replace(conversion, settings=settings), toolchain, program, paths) for settings in alike
        )
        for toolchain in toolchains
    }


def _key(conversion: ConversionPlan, toolchain: str, program: str, paths: Mapping[str, Path]) -> str:
    """Return the digest of all that the products depend on, the provenance included.

    Where the model directory is does not go in; ``paths`` does, which is what the provenance says of this
    machine.
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


def program_digest(root: Path = PROJECT_ROOT) -> str:
    """Return the sha256 over the host program: it makes the final bytes and the provenance."""
    files = (path for path in (root / "runner").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return files_digest(sorted(files), root)
