"""The same files are hashed, sent to the daemon, and admitted by ``.dockerignore``."""

from __future__ import annotations

import io
import os
import re
import tarfile
from typing import TYPE_CHECKING

import pytest
from docker.utils import exclude_paths

from runner.errors import ConfigError, IntegrityError, UsageError
from runner.toolchain.files import CA_BUNDLE, LOCAL_MODELS
from runner.toolchain.image_plan import ImagePlan, candidate_plans, plan_image, write_context
from runner.toolchain.pins import PROJECT_ROOT, load_base_image
from tests.unit.fixtures.small_project import TREE, reply_status, tarball

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Serve
    from tests.unit.fixtures.small_project import Project


def plan(project: Project, *, base_image: str | None = None, models: str = "github") -> ImagePlan:
    return plan_image(base_image=base_image, models=models, root=project.root)


def written(image_plan: ImagePlan) -> bytes:
    context = io.BytesIO()
    write_context(image_plan, context)
    return context.getvalue()


def files_of(context: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        opened = {member.name: archive.extractfile(member) for member in archive if member.isreg()}
        return {name: file.read() for name, file in opened.items() if file is not None}


def test_equal_inputs_give_an_equal_context_and_tag(project: Project) -> None:
    first = plan(project), written(plan(project))
    for path in project.root.rglob("*"):
        os.utime(path, (1, 1))
    assert (plan(project), written(plan(project))) == first


@pytest.mark.parametrize(
    "name", ["Dockerfile", "models-research-pin.txt", "docker/bin/toco", "docker/requirements.lock"]
)
def test_every_file_counts(project: Project, name: str) -> None:
    before = plan(project)
    with (project.root / name).open("a") as file:
        file.write("\n# a word\n")
    assert plan(project).tag != before.tag


def test_a_new_file_and_an_executable_bit_count(project: Project) -> None:
    before = plan(project)
    step = project.root / "docker/steps/new.py"
    step.write_text("")
    with_file = plan(project)
    step.chmod(0o755)
    assert len({before.tag, with_file.tag, plan(project).tag}) == 3


def test_base_image_and_source_count(project: Project) -> None:
    plans = [plan(project), plan(project, base_image="other:1"), plan(project, models="pypi")]
    assert len({image_plan.tag for image_plan in plans}) == 3
    assert plans[0].base_image == load_base_image(project.root)
    assert plans[1].build_args == {"BASE_IMAGE": "other:1", "MODELS_SOURCE": "github"}
    assert plans[2].labels["mobiledet-runner.models-commit"] == plans[2].models_commit
    assert plans[2].labels["mobiledet-runner.digest"].startswith(plans[2].tag.partition(":")[2])


def test_network_settings_are_passed_on_but_not_hashed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan(project)
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(b"a certificate")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    after = plan_image(models="github", ca_bundle=bundle, root=project.root)
    assert after.tag == before.tag
    assert after.build_args["https_proxy"] == "http://proxy.example:3128"
    assert after.build_args["PIP_INDEX_URL"] == "https://index.example/simple"
    assert files_of(written(after))[CA_BUNDLE] == b"a certificate"
    assert CA_BUNDLE not in files_of(written(before))


def test_what_is_sent_is_what_dockerignore_admits(project: Project) -> None:
    for name in ("README.md", ".git/config", "docker/bin/__pycache__/x.cpython-37.pyc", "docker/steps/y.pyc"):
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text("not for the image\n")
    patterns = (project.root / ".dockerignore").read_text().splitlines()
    admitted = exclude_paths(str(project.root), [line for line in patterns if not line.startswith("#")])
    admitted_files = {name for name in admitted if (project.root / name).is_file()}
    assert files_of(written(plan(project))).keys() == admitted_files - {".dockerignore"}


def test_what_only_one_machine_has_is_neither_hashed_nor_sent_by_itself(project: Project) -> None:
    before = plan(project)
    for name in (CA_BUNDLE, LOCAL_MODELS):
        (project.root / name).write_bytes(b"of this machine")
    assert plan(project).tag == before.tag
    assert not {CA_BUNDLE, LOCAL_MODELS} & files_of(written(plan(project))).keys()


def test_a_local_tree_is_proven_and_packed(project: Project, tmp_path: Path) -> None:
    packed = tmp_path / "models.tar.gz"
    packed.write_bytes(tarball({**TREE, "research/object_detection/junk.py": b"junk"}))
    image_plan = plan(project, models=str(packed))
    assert image_plan.source == "local"
    assert files_of(files_of(written(image_plan))[LOCAL_MODELS]) == TREE
    assert written(image_plan) == written(image_plan)


def test_a_local_tree_that_is_not_the_pinned_one_is_not_sent(project: Project, tmp_path: Path) -> None:
    (tmp_path / "models.tar").write_bytes(tarball({}))
    with pytest.raises(IntegrityError, match="3 of 3 files are missing"):
        written(plan(project, models=str(tmp_path / "models.tar")))


def test_folders_of_the_image_are_not_writable_for_everybody(project: Project) -> None:
    with tarfile.open(fileobj=io.BytesIO(written(plan(project)))) as archive:
        modes = {member.name: member.mode for member in archive}
    assert modes["docker/bin"] == modes["docker/steps"] == modes["docker/bin/toco"] == 0o755
    assert modes["docker/models_research.py"] == 0o644


def test_auto_plans_for_the_source_that_can_be_reached(
    project: Project, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    project.point_to(github=serve(reply_status(200)))
    assert plan(project, models="auto").source == "github"
    project.point_to(github="http://127.0.0.1:9")
    assert plan(project, models="auto").source == "pypi"
    assert "GitHub cannot be reached" in capsys.readouterr().err


def test_candidates_are_planned_without_the_network(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.point_to(github="http://127.0.0.1:9")
    assert [image_plan.source for image_plan in candidate_plans(root=project.root)] == ["github", "pypi"]
    assert capsys.readouterr().err == ""


def test_a_ca_bundle_that_is_not_there_is_a_usage_error(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no CA bundle"):
        plan_image(models="github", ca_bundle=tmp_path / "gone.crt", root=project.root)


def test_a_missing_pin_is_a_config_error(project: Project) -> None:
    project.pin_file.unlink()
    with pytest.raises(ConfigError):
        plan(project)


def test_the_dockerfile_stays_with_what_the_classic_builder_understands() -> None:
    instructions = re.sub(r"(?m)^#.*\n", "", (PROJECT_ROOT / "Dockerfile").read_text())
    assert not re.search(r"--mount|--chmod|--link|<<|\bapt(-get)?\b|# *syntax", instructions)
