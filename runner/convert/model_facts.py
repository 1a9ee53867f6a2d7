"""The facts about a model that planning needs, from its recipe or its pipeline config.

Only the toolchain can parse a config. If the recipe states the facts, planning needs no toolchain. Facts that
were read from a config are cached, keyed by the digests of the config and the toolchain.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from runner.engines.base import Folders
from runner.host.cache_dir import cache_dir
from runner.host.digests import sha256_of
from runner.host.whole_file import write_whole
from runner.scripts.run import Script, run_step

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Engine, Session
    from runner.recipes.recipe import Variant
    from runner.scripts.run import ScriptOptions

FOLDER_NAME: Final = "model-facts"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Whether a model was trained with quantization, and its input shape (NHWC)."""

    is_quantized: bool
    input_shape: tuple[int, ...]


def stated_facts(variant: Variant) -> ModelFacts | None:
    """Return the facts that the recipe states, or None if they must be read from the config."""
    if variant.input_shape is None:
        return None
    return ModelFacts(is_quantized=variant.has_quantized_graph, input_shape=variant.input_shape)


def known_facts(
    config: Path, toolchains: tuple[str, ...], *, repair: tuple[str, ...] = ()
) -> ModelFacts | None:
    """Return the cached facts about a model, from any of the toolchains; None if no facts are cached."""
    found = (_read(_memo(config, toolchain, repair)) for toolchain in toolchains)
    return next((facts for facts in found if facts is not None), None)


def obtain_facts(
    engine: Engine, config: Path, options: ScriptOptions, *, repair: tuple[str, ...] = ()
) -> ModelFacts:
    """Return the facts about a model from the cache, or else from its config.

    ``repair`` are the flags of `repair_flags`, for a config that the detection API cannot parse unchanged.

    Raises:
        ConfigError: the model cannot be exported.
        RunnerError: the toolchain could not be started, or the step failed.
    """
    memo = _memo(config, engine.prepare().digest, repair)
    known = _read(memo)
    if known is not None:
        return known
    with engine.open(Folders(read_only=(config.resolve(),)), {}) as session:
        session.wait_until_ready()
        facts = read_facts(session, config.resolve(), options, repair=repair)
    with contextlib.suppress(OSError):  # if they cannot be cached, the next run reads them again
        write_whole(memo, json.dumps(asdict(facts)).encode())
    return facts


def read_facts(
    session: Session, config: Path, options: ScriptOptions, *, repair: tuple[str, ...] = ()
) -> ModelFacts:
    """Read the facts from a config that is visible in the session.

    Raises:
        ConfigError: the model cannot be exported.
    """
    script = Script(
        name="pipeline_config.py",
        argv=(f"{session.toolchain_dir}/steps/pipeline_config.py", "--input", str(config), *repair),
        log_name="model_facts.log",
        options=options,
    )
    return _facts(run_step(session, script))


def _facts(described: Any) -> ModelFacts:  # noqa: ANN401 - a step's JSON
    height, width, channels = (described[f"input_{name}"] for name in ("height", "width", "channels"))
    return ModelFacts(
        is_quantized=bool(described["is_quantized"]), input_shape=(1, int(height), int(width), int(channels))
    )


def _memo(config: Path, toolchain: str, repair: tuple[str, ...]) -> Path:
    key = hashlib.sha256(" ".join((sha256_of(config), *repair)).encode()).hexdigest()
    return cache_dir() / FOLDER_NAME / f"{key[:16]}{toolchain[:16]}.json"


def _read(memo: Path) -> ModelFacts | None:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
        return ModelFacts(is_quantized=bool(known["is_quantized"]), input_shape=tuple(known["input_shape"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
