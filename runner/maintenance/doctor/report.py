"""Check both engines, the network and the machine, and report the first problem to fix.

Every check has a time limit. Nothing is built, downloaded or left behind.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.engines.choose import AUTO, DOCKER, LOCAL, first_that_can_run
from runner.maintenance.doctor.docker import check_docker
from runner.maintenance.doctor.findings import EngineCheck, Finding, Question, Report, State
from runner.maintenance.doctor.local import check_disk, check_local, check_memory
from runner.maintenance.doctor.network import network_checks

if TYPE_CHECKING:
    from runner.recipes.recipe import Recipe


def examine(question: Question, recipe: Recipe) -> Report:
    """Check both engines, the network and the machine in parallel."""
    with ThreadPoolExecutor() as pool:
        docker_check = pool.submit(check_docker, question)
        local_check = pool.submit(check_local, question)
        pending = [pool.submit(check) for check in network_checks(question, recipe)]
        docker_result, local_result = docker_check.result(), local_check.result()
        network = tuple(check.result() for check in pending)
    engine = _engine_in_question(question.engine, docker_result, local_result)
    is_built = (docker_result if engine == DOCKER else local_result).is_built
    of_docker = (replace(finding, engine=DOCKER) for finding in docker_result.findings)
    of_local = (replace(finding, engine=LOCAL) for finding in local_result.findings)
    findings = (*of_docker, *of_local, *network, check_disk(), check_memory())
    return Report(
        engine=engine,
        is_built=is_built,
        findings=findings,
        first_to_do=_first_to_do(findings, engine, is_built=is_built),
    )


def _engine_in_question(requested: str, docker_result: EngineCheck, local_result: EngineCheck) -> str:
    """Return the requested engine, or the one that ``auto`` would choose; Docker if neither can run."""
    if requested != AUTO:
        return requested
    can_run = {DOCKER: docker_result.can_run, LOCAL: local_result.can_run}
    return first_that_can_run(can_run.__getitem__) or DOCKER


def _first_to_do(findings: tuple[Finding, ...], engine: str, *, is_built: bool) -> str | None:
    for finding in findings:
        matters = finding.engine in (engine, None) and not (is_built and finding.only_for_building)
        if finding.state is State.PROBLEM and matters:
            return finding.remedy or finding.text
    return None
