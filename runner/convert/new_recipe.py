"""Generate a ``recipe.toml`` for the models in a folder, or for one pipeline config."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.checkpoint.files import CONFIG_NAME
from runner.convert.own_model import OwnModel, own_recipe
from runner.errors import ConfigError, UsageError
from runner.recipes.recipe import RECIPE_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from runner.convert.model_facts import ModelFacts

DEFAULT_PREFIX = "model.ckpt"


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model: its config, its folder in the archive ("" for the top folder), its checkpoint's prefix."""

    config: Path
    folder: str = ""
    checkpoint_prefix: str = DEFAULT_PREFIX


def find_models(root: Path) -> tuple[FoundModel, ...]:
    """Find the models in an unpacked archive. Its top folder and each subfolder may contain one model.

    Raises:
        ConfigError: no folder has a pipeline config, or a folder has several checkpoints.
    """
    configs = [
        path for path in (root / CONFIG_NAME, *sorted(root.glob(f"*/{CONFIG_NAME}"))) if path.is_file()
    ]
    if not configs:
        raise ConfigError(
            f"there is no {CONFIG_NAME} in {root} or its subfolders",
            tip="name the folder that contains the config and the checkpoint",
        )
    return tuple(
        FoundModel(
            config=config,
            folder="" if config.parent == root else config.parent.name,
            checkpoint_prefix=_prefix_in(config.parent),
        )
        for config in configs
    )


def _prefix_in(folder: Path) -> str:
    prefixes = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    if len(prefixes) > 1:
        raise ConfigError(
            f"{folder} has several checkpoints: {', '.join(prefixes)}",
            tip="keep only the checkpoint to convert, or set checkpoint_prefix in the recipe yourself",
        )
    return prefixes[0] if prefixes else DEFAULT_PREFIX


def recipe_text(title: str, models: tuple[tuple[FoundModel, ModelFacts], ...], *, url: str | None) -> str:
    """Return the text of a recipe with a variant for each model and the settings of `convert`."""
    archive = "" if url is None else f"\n[archive]\nurl = {json.dumps(url)}\n"
    kinds = [facts.is_quantized for _, facts in models]
    variants = (
        _variant_text(model, facts, is_named=kinds.count(facts.is_quantized) > 1) for model, facts in models
    )
    return f"title = {json.dumps(title)}\n{archive}{''.join(variants)}"


def _variant_text(model: FoundModel, facts: ModelFacts, *, is_named: bool) -> str:
    own = OwnModel(name="model", checkpoint_prefix=model.checkpoint_prefix)
    (variant,) = own_recipe(own, facts).variants.values()
    name = model.folder if is_named and model.folder else ("uint8" if facts.is_quantized else "fp32")
    lines = [f"\n[variants.{name}]", f'inference_type = "{variant.inference_type.value}"']
    lines += [f"input_shape = {list(facts.input_shape)}", f'checkpoint_prefix = "{model.checkpoint_prefix}"']
    lines += [f'folder = "{model.folder}"'] if model.folder else []
    if facts.is_quantized:
        lines += [f"mean_value = {variant.mean_value:g}", f"std_value = {variant.std_value:g}"]
    lines += [f'toco_flags = ["{flag}"]' for flag in variant.toco_flags]
    settings = variant.settings
    lines += [f"\n[variants.{name}.settings]", f'nms = "{settings.nms.value}"']
    lines += [f"max_detections = {settings.max_detections}"]
    return "\n".join(lines) + "\n"


def write_recipe(folder: Path, text: str) -> Path:
    """Write ``recipe.toml`` into a folder, which is created if it does not exist.

    Raises:
        UsageError: the file already exists, or the folder is not writable.
    """
    path = folder / RECIPE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} already exists", tip="edit it, or choose another folder") from None
    except OSError as problem:
        raise UsageError(f"cannot write {path}: {problem.strerror}") from problem
    return path
