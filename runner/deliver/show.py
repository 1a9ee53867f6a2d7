"""Format a plan as text lines and as JSON, for ``--dry-run``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.recipes.settings import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.convert.plan import ConversionPlan
    from runner.deliver.plan import Plan


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines that describe a plan; commands contain placeholders instead of folders."""
    yield f"recipe {plan.recipe}"
    yield f"model directory {plan.model_dir}"
    yield f"output directory {plan.out_dir}"
    for folder in plan.read_only[1:]:
        yield f"also mounted read-only: {folder}"
    for conversion in plan.conversions:
        yield ""
        yield from _conversion_lines(plan, conversion)


def _conversion_lines(plan: Plan, conversion: ConversionPlan) -> Iterator[str]:
    name = conversion.variant.name
    yield f"{name}: {conversion.checkpoint.verdict.sentence}"
    for setting, value in to_json(conversion.settings).items():
        yield f"  {setting} = {'as in the config' if value is None else value}"
    if conversion.variant.toolchain != DEFAULT_TOOLCHAIN:
        yield f"  TOCO of the toolchain {conversion.variant.toolchain}"
    yield f"  speedups = {','.join(conversion.speedups) or 'none'}"
    yield from (f"  reads {file.name} (sha256 {file.sha256})" for file in conversion.checkpoint.files)
    yield from (f"  $ {' '.join(map(_word, command))}" for command in conversion.commands.all)
    yield from (f"  writes {product}" for product in plan.products(conversion))
    yield from (f"  cache key {keys[0]} (toolchain {it[:12]})" for it, keys in plan.keys[name].items())


def _word(word: str) -> str:
    return word if word.startswith("${") or "=${" in word else shlex.quote(word)


def plan_json(plan: Plan) -> dict[str, object]:
    """Return a plan as JSON data."""
    return {
        "recipe": plan.recipe,
        "model_dir": plan.model_dir,
        "out_dir": plan.out_dir,
        "read_only": plan.read_only,
        "conversions": [
            {
                "variant": it.variant.name,
                "toolchain": it.variant.toolchain,
                "checkpoint": it.checkpoint.verdict.sentence,
                "settings": to_json(it.settings),
                "speedups": list(it.speedups),
                "inputs": {file.name: file.sha256 for file in it.checkpoint.files},
                "commands": asdict(it.commands),
                "products": list(plan.products(it)),
                "cache_keys": {toolchain: keys[0] for toolchain, keys in plan.keys[it.variant.name].items()},
            }
            for it in plan.conversions
        ],
    }
