"""Check this machine: the local engine, processor, disk and memory."""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.engines.choose import LOCAL
from runner.errors import EngineError, RunnerError
from runner.host.cache_dir import CACHE_DIR_VARIABLE, cache_dir
from runner.host.cpu import AVX_REMEDY, cpu_flags
from runner.maintenance.doctor.findings import (
    EngineCheck,
    Finding,
    Question,
    State,
    refused,
)
from runner.toolchain.catalog import image_command, other_toolchains
from runner.toolchain.models_source import tree_text

if TYPE_CHECKING:
    from runner.toolchain.catalog import ToolchainSpec

NEEDED_MEMORY_MIB: Final = 2048
"""Memory for two parallel exports, here or in Docker; one export takes 0.8 GiB."""
NEEDED_DISK_MB: Final = 6000
"""Disk space for building the image or the environment, and for some results."""


def check_local(question: Question) -> EngineCheck:
    """Check the interpreter, the environment that was built with it, and the processor."""
    from runner.engines.local.engine import LocalEngine

    engine = LocalEngine(models=question.models, python=question.python)
    processor = avx_finding("processor", cpu_flags(_proc("cpuinfo")))
    try:
        available = engine.availability()
        found = engine.find() if engine.has_interpreter else None
    except RunnerError as problem:
        return EngineCheck(findings=(refused("local engine", problem), processor), can_run=False)
    if not available.can_run:
        missing = EngineError(available.reason, tip=available.tip)
        return EngineCheck(findings=(refused("local engine", missing), processor), can_run=False)
    python = Finding(subject="interpreter", text=available.reason)
    if found is None:
        text = "not built yet; the first run builds it, or run `image --engine local` now"
    else:
        plan, folder = found
        kind = None if plan.source is None else plan.source.kind
        text = f"{folder} is complete ({tree_text(kind, plan.models_commit)})"
    environment = Finding(subject="local environment", text=text)
    others = (
        ()
        if not engine.has_interpreter
        else tuple(map(partial(_other_environment, question), other_toolchains()))
    )
    return EngineCheck(
        findings=(python, environment, *others, processor), can_run=True, is_built=found is not None
    )


def _other_environment(question: Question, spec: ToolchainSpec) -> Finding:
    from runner.engines.local.engine import LocalEngine

    found = LocalEngine(toolchain=spec.name, python=question.python).find()
    return other_finding(spec, LOCAL, None if found is None else str(found[1]))


def other_finding(spec: ToolchainSpec, engine: str, built: str | None) -> Finding:
    """Report whether a toolchain other than the default one is built; this is optional."""
    text = f"not built; optional: `{image_command(spec)} --engine {engine}` builds it"
    if built is not None:
        text = f"{built} is built ({spec.title}, {tree_text(None, None)})"
    return Finding(subject=f"toolchain {spec.name}", text=text)


def avx_finding(subject: str, flags: frozenset[str]) -> Finding:
    """Check the flags of a processor for AVX."""
    if "avx" in flags:
        return Finding(subject=subject, text="x86-64 with AVX")
    return Finding(
        subject=subject,
        state=State.PROBLEM,
        text="no AVX, which TensorFlow 1.15 needs",
        remedy=AVX_REMEDY,
    )


def check_disk() -> Finding:
    """Check whether there is enough disk space to build the toolchain."""
    folder = cache_dir()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free_mb = shutil.disk_usage(there).free // 1_000_000
    text = f"{free_mb} MB free for {folder}"
    if free_mb >= NEEDED_DISK_MB:
        return Finding(subject="disk", text=text)
    remedy = f"building takes {NEEDED_DISK_MB} MB; free some space (`clean`), or set {CACHE_DIR_VARIABLE}"
    return Finding(subject="disk", state=State.PROBLEM, text=text, remedy=remedy, only_for_building=True)


def check_memory() -> Finding:
    """Check whether there is enough memory for two exports in parallel."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB$", _proc("meminfo"), flags=re.MULTILINE)
    if match is None:
        return Finding(subject="memory", text=f"not known; {os.cpu_count()} processors")
    available_mib = int(match.group(1)) // 1024
    text = f"{available_mib} MiB available, {os.cpu_count()} processors"
    if available_mib >= NEEDED_MEMORY_MIB:
        return Finding(subject="memory", text=text)
    remedy = f"two variants in parallel take {NEEDED_MEMORY_MIB} MiB; convert one at a time"
    return Finding(subject="memory", state=State.WARNING, text=text, remedy=remedy)


def _proc(name: str) -> str:
    """Return the content of a file in /proc, or an empty string on systems without it, such as macOS."""
    try:
        return Path("/proc", name).read_text(encoding="utf-8")
    except OSError:
        return ""
