"""Check both engines, the network and the machine, and report the first problem to fix.

Every check has a time limit, and nothing is built, downloaded or left behind.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.engines.choose import AUTO, DOCKER, LOCAL, first_that_can_run
from runner.maintenance.doctor.docker import look_at_docker
from runner.maintenance.doctor.findings import EngineLook, Finding, Question, Report, State
from runner.maintenance.doctor.local import look_at_disk, look_at_local, look_at_memory
from runner.maintenance.doctor.network import network_looks

if TYPE_CHECKING:
    from runner.recipes.recipe import Recipe


def examine(question: Question, recipe: Recipe) -> Report:
    """Check both engines, the network and the machine in parallel."""
    with ThreadPoolExecutor() as pool:
        docker_look = pool.submit(look_at_docker, question)
        local_look = pool.submit(look_at_local, question)
        pending = [pool.submit(look) for look in network_looks(question, recipe)]
        docker_side, local_side = docker_look.result(), local_look.result()
        network = tuple(look.result() for look in pending)
    engine = _engine_in_question(question.engine, docker_side, local_side)
    is_built = (docker_side if engine == DOCKER else local_side).is_built
    of_docker = (replace(finding, engine=DOCKER) for finding in docker_side.findings)
    of_local = (replace(finding, engine=LOCAL) for finding in local_side.findings)
    findings = (*of_docker, *of_local, *network, look_at_disk(), look_at_memory())
    return Report(
        engine=engine,
        is_built=is_built,
        findings=findings,
        first_to_do=_first_to_do(findings, engine, is_built=is_built),
    )


def _engine_in_question(asked_for: str, docker_side: EngineLook, local_side: EngineLook) -> str:
    """Return the requested engine, or the one that ``auto`` would choose; Docker if neither can run."""
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
