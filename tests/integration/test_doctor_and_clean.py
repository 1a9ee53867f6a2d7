"""`doctor` and `clean` with a real engine."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import docker
import pytest

from runner.maintenance.clean import Belonging, take_inventory
from runner.recipes.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Program


def test_doctor_finds_the_engine_ready_and_its_toolchain_built(program: Program) -> None:
    done = program("doctor", "--json")
    assert done.exit_code == 0, done.stdout
    report = done.json
    assert (report["engine"], report["ready"], report["is_built"]) == (program.engine_name, True, True)
    states = {it["subject"]: it["state"] for it in report["findings"] if it["engine"] == program.engine_name}
    processor = {"docker": "processor in a container", "local": "processor"}[program.engine_name]
    assert states[processor] == "ok"


def test_doctor_prints_a_line_each_and_the_verdict_last(program: Program) -> None:
    done = program("doctor")
    assert done.stdout.splitlines()[-1] == f"ready: engine {program.engine_name}, its toolchain is built"


# --- what is in Docker ------------------------------------------------------------------------------------


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.from_env()) as connected:
        yield connected


@pytest.fixture
def named(client: docker.DockerClient, tmp_path: Path) -> Iterator[str]:
    """A name for images and containers, ours and others'; all of them are removed afterwards."""
    name = f"clean-test-{abs(hash(str(tmp_path)))}"
    ours = image(client, f"mobiledet-runner:{name}", label=True)
    stranger = image(client, f"stranger:{name}", label=False)
    image(client, f"derived:{name}", label=True)
    container(client, ours, f"ours-{name}", label=True)
    container(client, stranger, f"stranger-{name}", label=False)
    yield name
    for left in client.containers.list(all=True, filters={"name": name}):
        left.remove(force=True)
    for repository in ("mobiledet-runner", "stranger", "derived"):
        for image_left in client.images.list(name=f"{repository}:{name}"):
            client.images.remove(str(image_left.id), force=True)
    # The daemon builds each step in a container, whose command says what the step does.
    commands = [str(it["Command"]) for it in client.api.containers(all=True)]
    assert not [command for command in commands if name in command]


def image(client: docker.DockerClient, tag: str, *, label: bool) -> str:
    """Build an image of nothing but a label."""
    labels = f"LABEL of={tag}" + (" mobiledet-runner=test" if label else "")
    client.images.build(fileobj=io.BytesIO(f"FROM scratch\n{labels}\n".encode()), tag=tag, rm=True)
    return tag


def container(client: docker.DockerClient, image_name: str, name: str, *, label: bool) -> None:
    labels = {"mobiledet-runner": "session"} if label else {}
    client.api.create_container(image_name, ["/nothing"], name=name, labels=labels)


def listed(name: str) -> dict[str, Belonging]:
    return {it.name: it for it in take_inventory([load_recipe()]).belongings if name in it.name}


@pytest.mark.engine("docker")
def test_clean_lists_containers_and_images_of_ours_and_no_others(named: str) -> None:
    assert {name: it.kind for name, it in listed(named).items()} == {
        f"ours-{named}": "container",
        f"mobiledet-runner:{named}": "image",
    }


@pytest.mark.engine("docker")
def test_clean_removes_them_and_no_others(named: str, client: docker.DockerClient) -> None:
    for belonging in listed(named).values():
        belonging.remove()
    assert listed(named) == {}
    assert [it.name for it in client.containers.list(all=True, filters={"name": named})] == [
        f"stranger-{named}"
    ]
    assert len(client.images.list(name=f"stranger:{named}")) == 1
    assert len(client.images.list(name=f"derived:{named}")) == 1
    assert client.images.list(name=f"mobiledet-runner:{named}") == []


@pytest.mark.engine("docker")
def test_clean_leaves_what_somebody_else_named_and_says_so(named: str) -> None:
    assert f"the image derived:{named} was tagged by another program" in take_inventory([load_recipe()]).stays
