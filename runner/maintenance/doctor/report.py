"""Look at everything a conversion needs, and say what is missing and what to do about it.

Every look is bounded in time, and nothing is built, downloaded or left behind.
"""

from __future__ import annotations

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.engines.choose import AUTO, DOCKER, LOCAL, first_that_can_run
from runner.errors import EngineError, RunnerError, UsageError
from runner.host.cache_dir import CACHE_DIR_VARIABLE, cache_dir
from runner.host.cpu import AVX_REMEDY, cpu_flags
from runner.toolchain.image_plan import candidate_plans
from runner.toolchain.models_source import GITHUB, PYPI, candidate_sources, why_unreachable
from runner.toolchain.pins import load_models_pin

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient

    from runner.engines.docker.inspection import DaemonFacts, ImagesFound
    from runner.recipes.recipe import Recipe

CONNECT_TIMEOUT_S: Final = 10
NEEDED_MEMORY_MIB: Final = 2048
"""Two exports at the same time; one alone takes 0.8 GiB."""
NEEDED_DISK_MB: Final = 6000
"""Building the image or the environment, and room for some results."""
PYPI_INDEX: Final = "https://pypi.org/simple"


class State(Enum):
    """How something was found to be."""

    GOOD = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    ``engine`` is the one it is about; None: both. ``only_for_building``: no matter once it is built.
    """

    subject: str
    state: State
    text: str
    remedy: str | None = None
    engine: str | None = None
    only_for_building: bool = False

    def __str__(self) -> str:
        line = f"{self.state.value:8} {self.subject}: {self.text}"
        return line if self.remedy is None else f"{line}; {self.remedy}"

    def as_json(self) -> dict[str, object]:
        """Return it for a program to read."""
        return {**asdict(self), "state": self.state.value}


@dataclass(frozen=True, kw_only=True)
class Question:
    """For which engine, and which way of building its toolchain, the machine is looked at."""

    engine: str = AUTO
    base_image: str | None = None
    models: str = "auto"
    python: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found. ``first_to_do`` is None when ``engine`` is ready."""

    engine: str
    is_built: bool
    findings: tuple[Finding, ...]
    first_to_do: str | None

    @property
    def verdict(self) -> str:
        """The last line: ready, or the first thing to do."""
        if self.first_to_do is not None:
            return f"not ready: {self.first_to_do}"
        when = "its toolchain is there" if self.is_built else "the first run builds its toolchain, in minutes"
        return f"ready: engine {self.engine}, {when}"

    def as_json(self) -> dict[str, object]:
        """Return it for a program to read."""
        return {
            "ready": self.first_to_do is None,
            "engine": self.engine,
            "is_built": self.is_built,
            "first_to_do": self.first_to_do,
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """What a look at one engine gave."""

    findings: tuple[Finding, ...]
    can_run: bool
    is_built: bool = False


def examine(question: Question, recipe: Recipe) -> Report:
    """Look at both engines, the network and the machine, all at the same time."""
    with ThreadPoolExecutor() as pool:
        docker_look = pool.submit(_look_at_docker, question)
        local_look = pool.submit(_look_at_local, question)
        network_looks = [pool.submit(look) for look in _network_looks(question, recipe)]
        docker_side, local_side = docker_look.result(), local_look.result()
        network = tuple(look.result() for look in network_looks)
    engine = _engine_in_question(question.engine, docker_side, local_side)
    is_built = (docker_side if engine == DOCKER else local_side).is_built
    findings = (*docker_side.findings, *local_side.findings, *network, _disk(), _memory())
    return Report(
        engine=engine,
        is_built=is_built,
        findings=findings,
        first_to_do=_first_to_do(findings, engine, is_built=is_built),
    )


def _engine_in_question(asked_for: str, docker_side: _Looked, local_side: _Looked) -> str:
    """Return the engine asked for, or the one that ``auto`` would take; Docker where neither can run."""
    if asked_for != AUTO:
        return asked_for
    can_run = {DOCKER: docker_side.can_run, LOCAL: local_side.can_run}
    return first_that_can_run(can_run.__getitem__) or DOCKER


def _first_to_do(findings: tuple[Finding, ...], engine: str, *, is_built: bool) -> str | None:
    for finding in findings:
        matters = finding.engine in (engine, None) and not (is_built and finding.only_for_building)
        if finding.state is State.PROBLEM and matters:
            return finding.remedy or finding.text
    return None


# --- Docker -----------------------------------------------------------------------------------------------


def _look_at_docker(question: Question) -> _Looked:
    from runner.engines.docker import inspection
    from runner.engines.docker.daemon import connect

    try:
        plans = candidate_plans(base_image=question.base_image, models=question.models)
        with connect(timeout_s=CONNECT_TIMEOUT_S) as client:
            facts = inspection.read_daemon(client)
            images = inspection.find_images(client, plans)
            findings = (
                daemon_finding(facts),
                users_finding(facts),
                _base_image(images),
                _toolchain_image(images),
                _processor_inside(client, images.toolchain_id or images.base_id),
            )
            can_run, is_built = images.availability.can_run, images.toolchain_id is not None
            return _Looked(findings=findings, can_run=can_run, is_built=is_built)
    except UsageError as problem:
        return _Looked(findings=(_refused("toolchain image", problem, DOCKER),), can_run=False)
    except EngineError as problem:
        daemon = Finding(
            subject="Docker daemon",
            state=State.PROBLEM,
            text=problem.message,
            remedy=problem.tip,
            engine=DOCKER,
        )
        return _Looked(findings=(daemon,), can_run=False)


def daemon_finding(facts: DaemonFacts) -> Finding:
    """Judge where a daemon runs, and on what."""
    about = f"version {facts.version}, {facts.architecture}, {facts.memory_mib} MiB of memory, {facts.source}"
    if facts.is_remote:
        return Finding(
            subject="Docker daemon",
            state=State.WARNING,
            text=about,
            remedy="it is reached over a network: unless it runs on this machine, it cannot see your folders",
            engine=DOCKER,
        )
    if facts.architecture not in ("x86_64", "amd64"):
        return Finding(
            subject="Docker daemon",
            state=State.WARNING,
            text=f"{about}; the toolchain is for x86-64 and is emulated there",
            remedy="slow, and only with an emulator that offers AVX; an x86-64 machine is better",
            engine=DOCKER,
        )
    if 0 < facts.memory_mib < NEEDED_MEMORY_MIB:
        remedy = f"give it at least {NEEDED_MEMORY_MIB} MiB, or convert one variant at a time"
        return Finding(subject="Docker daemon", state=State.WARNING, text=about, remedy=remedy, engine=DOCKER)
    return Finding(subject="Docker daemon", state=State.GOOD, text=about, engine=DOCKER)


def users_finding(facts: DaemonFacts) -> Finding:
    """Judge whether what a container writes will belong to the caller."""
    if facts.remaps_users:
        return Finding(
            subject="users",
            state=State.PROBLEM,
            text="the daemon maps users to others (userns-remap), who may not write to your folders",
            remedy="use a rootless daemon, one without userns-remap, or `--engine local`",
            engine=DOCKER,
        )
    if facts.is_rootless:
        text = "a rootless daemon; uid 0 inside is you, and results belong to you"
    else:
        text = f"the toolchain runs as you ({os.getuid()}:{os.getgid()}), and results belong to you"
    return Finding(subject="users", state=State.GOOD, text=text, engine=DOCKER)


def _toolchain_image(images: ImagesFound) -> Finding:
    text = "not built yet; the first run does it, or `image`"
    if images.plan is not None:
        commit, road = images.plan.models_commit[:7], images.plan.road
        text = f"{images.plan.tag} is there (tensorflow/models {commit}, road: {road})"
    return Finding(subject="toolchain image", state=State.GOOD, text=text, engine=DOCKER)


def _base_image(images: ImagesFound) -> Finding:
    return Finding(
        subject="base image",
        state=State.GOOD if images.availability.can_run else State.PROBLEM,
        text=images.base_state,
        remedy=images.availability.tip,
        engine=DOCKER,
        only_for_building=True,
    )


def _processor_inside(client: DockerClient, image_id: str | None) -> Finding:
    from runner.engines.docker import inspection

    subject = "processor in a container"
    if image_id is None:
        return Finding(
            subject=subject,
            state=State.WARNING,
            text="not looked at, there is no image to look with",
            engine=DOCKER,
        )
    inside = inspection.look_inside(client, image_id)
    if inside.problem is not None:
        return Finding(
            subject=subject,
            state=State.PROBLEM,
            text=f"no container runs: {inside.problem}",
            remedy="does `docker run hello-world` work? the daemon's log says more",
            engine=DOCKER,
        )
    return avx_finding(subject, cpu_flags(inside.cpuinfo), DOCKER)


# --- local ------------------------------------------------------------------------------------------------


def _look_at_local(question: Question) -> _Looked:
    from runner.engines.local.engine import LocalEngine

    engine = LocalEngine(models=question.models, python=question.python)
    processor = avx_finding("processor", cpu_flags(_proc("cpuinfo")), LOCAL)
    try:
        found = engine.find()
        interpreter = engine.interpreter
    except RunnerError as problem:
        return _Looked(findings=(_refused("local engine", problem, LOCAL), processor), can_run=False)
    text = f"CPython {interpreter.version} at {interpreter.path}"
    python = Finding(subject="interpreter", state=State.GOOD, text=text, engine=LOCAL)
    if found is None:
        text = "not built yet; the first run does it, or `image --engine local`"
    else:
        plan, folder = found
        text = f"{folder} is whole (tensorflow/models {plan.models_commit[:7]}, road: {plan.source.road})"
    environment = Finding(subject="local environment", state=State.GOOD, text=text, engine=LOCAL)
    return _Looked(findings=(python, environment, processor), can_run=True, is_built=found is not None)


# --- both -------------------------------------------------------------------------------------------------


def _refused(subject: str, problem: RunnerError, engine: str) -> Finding:
    return Finding(
        subject=subject, state=State.PROBLEM, text=problem.message, remedy=problem.tip, engine=engine
    )


def avx_finding(subject: str, flags: frozenset[str], engine: str) -> Finding:
    """Judge a processor by its flags."""
    if "avx" in flags:
        return Finding(subject=subject, state=State.GOOD, text="x86-64 with AVX", engine=engine)
    return Finding(
        subject=subject,
        state=State.PROBLEM,
        text="without AVX, which TensorFlow 1.15 needs",
        remedy=AVX_REMEDY,
        engine=engine,
    )


def _network_looks(question: Question, recipe: Recipe) -> tuple[Callable[[], Finding], ...]:
    pin = load_models_pin()
    index = os.environ.get("PIP_INDEX_URL") or PYPI_INDEX
    return (
        lambda: _index(f"{index.rstrip('/')}/{pin.pypi.project}/"),
        lambda: _road(question.models, pin.github.url),
        lambda: _zoo(recipe.archive_url),
    )


def _index(url: str) -> Finding:
    reason = why_unreachable(url)
    if reason is None:
        return Finding(subject="PyPI", state=State.GOOD, text="can be reached", only_for_building=True)
    return Finding(
        subject="PyPI",
        state=State.PROBLEM,
        text=f"cannot be reached ({reason})",
        remedy="set HTTPS_PROXY, or PIP_INDEX_URL to a mirror; it is needed once, to build the toolchain",
        only_for_building=True,
    )


def _road(models: str, github_url: str) -> Finding:
    try:
        sources = candidate_sources(models)
    except RunnerError as problem:
        return Finding(
            subject="tensorflow/models", state=State.PROBLEM, text=problem.message, remedy=problem.tip
        )
    if GITHUB not in sources:
        text = f"from {sources[0].path or 'PyPI'}"
        return Finding(subject="tensorflow/models", state=State.GOOD, text=text)
    reason = why_unreachable(github_url)
    if reason is None:
        text = "GitHub can be reached"
        return Finding(subject="tensorflow/models", state=State.GOOD, text=text)
    return Finding(
        subject="tensorflow/models",
        state=State.WARNING if PYPI in sources else State.PROBLEM,
        text=f"GitHub cannot be reached ({reason})",
        remedy="`--models auto` takes PyPI's copy of a later commit; `--models PATH` takes a checkout",
        only_for_building=True,
    )


def _zoo(url: str) -> Finding:
    reason = why_unreachable(url)
    if reason is None:
        return Finding(subject="model zoo", state=State.GOOD, text="can be reached")
    return Finding(
        subject="model zoo",
        state=State.WARNING,
        text=f"cannot be reached ({reason})",
        remedy="the published checkpoints cannot be downloaded: use `--model-dir`, `fetch --url`, or `demo`",
    )


def _disk() -> Finding:
    folder = cache_dir()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free_mb = shutil.disk_usage(there).free // 1_000_000
    text = f"{free_mb} MB free for {folder}"
    if free_mb >= NEEDED_DISK_MB:
        return Finding(subject="disk", state=State.GOOD, text=text)
    remedy = f"building takes {NEEDED_DISK_MB} MB; make room (`clean`), or set {CACHE_DIR_VARIABLE}"
    return Finding(subject="disk", state=State.PROBLEM, text=text, remedy=remedy, only_for_building=True)


def _memory() -> Finding:
    match = re.search(r"^MemAvailable:\s*(\d+) kB$", _proc("meminfo"), flags=re.MULTILINE)
    if match is None:
        return Finding(subject="memory", state=State.GOOD, text=f"not known; {os.cpu_count()} processors")
    available_mib = int(match.group(1)) // 1024
    text = f"{available_mib} MiB available, {os.cpu_count()} processors"
    if available_mib >= NEEDED_MEMORY_MIB:
        return Finding(subject="memory", state=State.GOOD, text=text)
    remedy = f"both variants at once take {NEEDED_MEMORY_MIB} MiB; convert one at a time"
    return Finding(subject="memory", state=State.WARNING, text=text, remedy=remedy)


def _proc(name: str) -> str:
    """Return what Linux tells in /proc; nothing elsewhere, as on a Mac in front of Docker."""
    try:
        return Path("/proc", name).read_text(encoding="utf-8")
    except OSError:
        return ""
