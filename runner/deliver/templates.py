"""Cache of graph templates: find, make and audit the template for a conversion.

A graph template is a graph that the export script wrote, without the values of its variables; see
`runner.graph.template`. The key of a template is a digest of everything that the graph depends on, except for
the values in the checkpoint: the config and its edits, the flags of the export script, the toolchain (which
includes the models tree), and the names, dtypes and shapes of the checkpoint's tensors. All of these are
known before the toolchain starts. The edited config is stored in the template.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from runner import console
from runner.checkpoint.index import read_index
from runner.convert.export import edit_config, run_export
from runner.deliver.cache import ConversionCache
from runner.errors import ConfigError, IntegrityError
from runner.graph.template import FILES, Audit, make_template, read_template
from runner.host.cache_dir import cache_dir
from runner.host.digests import sha256_of
from runner.recipes.settings import Export

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.convert.pipeline import Conversion, Workplace
    from runner.convert.plan import ConversionPlan
    from runner.engines.base import Session
    from runner.graph.template import Template

FOLDER_NAME: Final = "templates"
LIMIT_MIB: Final = 256
"""Enough for hundreds of templates of 0.4 to 0.8 MB."""
KEY_FORMAT: Final = 1


def template_cache() -> ConversionCache:
    """Return the user's cache of templates."""
    return ConversionCache(folder=cache_dir() / FOLDER_NAME, limit_mib=LIMIT_MIB, what="graph template")


def template_key(plan: ConversionPlan, toolchain: str) -> str:
    """Return the key of the template that a conversion can use; ``toolchain`` is the digest of the toolchain.

    The key contains no paths: command words with a ``${…}`` placeholder are omitted.
    """
    tensors = read_index(plan.checkpoint.prefix).tensors.values()
    inputs = {
        "format": KEY_FORMAT,
        "toolchain": toolchain,
        "config": plan.checkpoint.config.sha256,
        "edits": _without_paths(plan.commands.config),
        "flags": _without_paths(plan.commands.export),
        "speedups": plan.speedups,
        "variables": sorted((it.name, it.dtype, it.shape) for it in tensors),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _without_paths(argv: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in argv if "${" not in word)


@dataclass(frozen=True, kw_only=True)
class Templates:
    """The templates of a run: copies of cached templates, in a folder that the toolchain can read.

    Can be used by several threads. ``toolchain`` is the digest of the toolchain.
    """

    folder: Path
    toolchain: str
    cache: ConversionCache = field(default_factory=template_cache)
    _taken: dict[str, Template] = field(default_factory=dict, init=False, repr=False)
    _dropped: set[str] = field(default_factory=set, init=False, repr=False)
    _being_made: dict[str, threading.Lock] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def find(self, plan: ConversionPlan) -> Template | None:
        """Return the template for a conversion, or None.

        None means that the conversion uses no template, that no template exists, or that it was dropped.
        """
        if not uses_template(plan):
            return None
        key = template_key(plan, self.toolchain)
        with self._lock:
            if key not in self._taken and key not in self._dropped and (taken := self._take(key)):
                self._taken[key] = taken
            return self._taken.get(key)

    @contextlib.contextmanager
    def find_or_wait(self, plan: ConversionPlan) -> Iterator[Template | None]:
        """Yield the template for a conversion, or None if there is none.

        After None, the caller runs the export script and calls `make` inside the ``with`` block. Until the
        block ends, other threads that need the same template wait instead of running the script too. If the
        caller cannot make or cache the template, no other thread tries.
        """
        template = self.find(plan)
        if template is not None or not uses_template(plan):
            yield template
            return
        key = template_key(plan, self.toolchain)
        with self._lock:
            is_dropped = key in self._dropped
            being_made = self._being_made.setdefault(key, threading.Lock())
        if is_dropped:
            yield None
            return
        with being_made:
            template = self.find(plan)
            if template is None:
                yield None
                if self.find(plan) is None:
                    with self._lock:
                        self._dropped.add(key)
                return
        yield template

    def _take(self, key: str) -> Template | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.cache.take(key, FILES, self.folder / key):
            return None
        try:
            return read_template(self.folder / key)
        except IntegrityError as problem:
            console.warn(f"{problem.message}; it is removed")
            self.cache.remove(key)
            return None

    def make(self, session: Session, conversion: Conversion) -> None:
        """Make a template from the graph that the script exported, and cache the template.

        Does nothing if the conversion uses no template, already used one, or its template was dropped. A
        failure is only a warning, because the conversion does not need the template.

        Raises:
            ScriptError: the step that makes the template crashed.
            EngineError: the engine stopped.
        """
        plan = conversion.plan
        if not uses_template(plan) or conversion.template is not None:
            return
        key = template_key(plan, self.toolchain)
        with self._lock:
            if key in self._dropped:
                return
        folder = conversion.folder / "template"
        try:
            make_template(
                session,
                folder,
                graph=conversion.graph,
                config=conversion.folder / plan.products.config,
                prefix=plan.checkpoint.prefix,
                config_report=conversion.config_report,
                made_from=plan.checkpoint.verdict.digest,
                options=conversion.options,
            )
        except ConfigError as problem:
            console.warn(f"no graph template could be made from {conversion.graph.name}: {problem.message}")
            return
        self.cache.keep(key, [folder / name for name in FILES])
        shutil.rmtree(folder)

    def drop(self, plan: ConversionPlan) -> None:
        """Remove the template of a conversion from the cache, and do not use or make it again in this run.

        The copy in the folder is kept, because another conversion may be using it.
        """
        key = template_key(plan, self.toolchain)
        with self._lock:
            self._dropped.add(key)
            self._taken.pop(key, None)
            self.cache.remove(key)


def uses_template(plan: ConversionPlan) -> bool:
    """Return whether a conversion uses a template if one exists."""
    return plan.settings.export is Export.TEMPLATE and plan.checkpoint.graph is None


def audit_template(session: Session, conversion: Conversion, place: Workplace) -> Audit:
    """Also export the graph of a conversion with the script, and compare it with the template's graph.

    The script runs in a separate process, forked from a server that has not read any template.

    Raises:
        ScriptError, OutputMissingError, EngineError: the script failed.
    """
    plan, template = conversion.plan, conversion.template
    assert template is not None
    name = plan.variant.name
    options = replace(place.options, log_dir=place.options.log_dir / "audit")
    apart = replace(place, out_dir=place.out_dir / f"{name}.audit", options=options)
    folder, commands = apart.folder(plan), apart.commands(plan, session)
    folder.mkdir(parents=True)
    with console.step("audit the graph template", of=name):
        edit_config(session, commands.config, apart.options_for(plan))
        run_export(
            session,
            commands.export,
            folder,
            apart.options_for(plan),
            speedups=plan.speedups,
            keep_pbtxt=False,
        )
    config = plan.products.config
    audit = Audit(
        template_sha256=template.sha256,
        filled_graph_sha256=sha256_of(conversion.graph),
        exported_graph_sha256=sha256_of(folder / plan.products.graph),
        has_same_config=(folder / config).read_bytes() == (conversion.folder / config).read_bytes(),
    )
    shutil.rmtree(apart.out_dir)
    return audit
