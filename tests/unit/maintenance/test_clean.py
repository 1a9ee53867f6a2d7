from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import docker
import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.errors import UsageError
from runner.host.cache_dir import cache_dir, exclusive
from runner.host.in_use import marked
from runner.maintenance.clean import remove_all, take_inventory
from runner.recipes.recipe import load_recipe
from runner.toolchain.pins import PROJECT_ROOT

RECIPE = load_recipe()
MODEL = "ssdlite_mobiledet_edgetpu_320x320_coco_2020_05_19"
MADE = (
    "environments/0123456789abcdef/env-1/bin/python",
    "environments/0123456789abcdef/whole.json",
    f"models/{MODEL}/fp32/model.ckpt-400000.index",
    f"models/{MODEL}.json",
    f"models/{MODEL}.tar.gz",
    f"models/{MODEL}.tar.gz.part",
    f"models/{MODEL}.tar.gz.part.json",
    f"models/{MODEL}.unverified/fp32/model.ckpt-400000.index",
    f"models/.{MODEL}.json.a1b2c3d4",
    f"models/.{MODEL}.json.unfinished",
    f"models/.{MODEL}.unpacking/half",
    "published/mobiledet_edgetpu/mobiledet.tflite",
    "stand-in/mobiledet_edgetpu-0-0123456789abcdef/fp32/pipeline.config",
    "logs/20261122-121212-a1b2c3d4/export.log",
    "conversions/0123456789abcdef0123456789abcdef/entry.json",
    "conversions/.0123456789abcdef0123456789abcdef.a1b2c3d4/half",
    "conversions/.0123456789abcdef0123456789abcdef.a1b2c3d4-old/half",
    "templates/0123456789abcdef0123456789abcdef/template.pb",
    "templates/.0123456789abcdef0123456789abcdef.a1b2c3d4/half",
    "digests/0123456789abcdef0123456789abcdef.json",
    "digests/.0123456789abcdef0123456789abcdef.json.a1b2c3d4",
    "digests/0123456789abcdef0123456789abcdef.a1b2c3d4.json",
    "model-facts/0123456789abcdef0123456789abcdef.json",
    "model-facts/.0123456789abcdef0123456789abcdef.json.a1b2c3d4",
    "model-facts/0123456789abcdef0123456789abcdef.unfinished",
    "pythons/0123456789abcdef/whole.json",
    "locks/0123456789abcdef.lock",
)
FOREIGN = (
    "environments/mine/bin/python",
    "environments/0123456789abcdef0/x",
    "models/my_model/pipeline.config",
    f"models/{MODEL}.zip",
    f"models/{MODEL}.unverified.bak/x",
    "published/thesis.pdf",
    "stand-in/mobiledet_edgetpu-0-0123456789abcdef.bak/x",
    "logs/2026.log",
    "conversions/mine/mobiledet.tflite",
    "templates/mine/template.pb",
    "digests/mine.json",
    "locks/mine.lock",
    "results/x",
    "notes.txt",
)


@pytest.fixture(autouse=True)
def without_daemon(monkeypatch: pytest.MonkeyPatch, no_daemon: None) -> None:  # noqa: ARG001
    monkeypatch.setattr(docker, "from_env", REAL_FROM_ENV)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


REAL_FROM_ENV = docker.from_env


def put(*names: str) -> None:
    for name in names:
        path = cache_dir() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")


def left() -> set[str]:
    """Return what is still in the cache."""
    return {
        (Path(folder) / name).relative_to(cache_dir()).as_posix()
        for folder, _, names in os.walk(cache_dir())
        for name in names
    }


def clean(*options: str) -> str:
    """Run the command and return what it printed."""
    result = CliRunner().invoke(app, ["clean", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_that_was_made_goes_and_the_empty_cache_with_it() -> None:
    put(*MADE)
    clean("--yes")
    assert not cache_dir().exists()


def test_what_other_recipes_left_goes_too(tmp_path: Path) -> None:
    put(
        "models/ssd_mobilenet_v2_coco_2018_03_29/pipeline.config",
        "models/ssd_mobilenet_v2_coco_2018_03_29.json",
    )
    put("stand-in/ssdlite_mobiledet_dsp_320x320_coco_2020_05_19-3-0123456789abcdef/fp32/x")
    put("published/arm_ml_zoo_ssd_mobilenet_v1_fp32/x", "models/mine_1/pipeline.config")
    clean("--yes")
    assert left() == {"models/mine_1/pipeline.config"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.toml").write_text(
        'title = "Mine"\n[archive]\nurl = "http://127.0.0.1:9/mine_1.tar.gz"\n'
        '[variants.float]\ninference_type = "FLOAT"\n'
    )
    clean("--yes", "--recipe", str(tmp_path / "mine"))
    assert not cache_dir().exists()


def test_nothing_else_is_ever_removed() -> None:
    put(*MADE, *FOREIGN)
    clean("--yes")
    assert left() == set(FOREIGN)


def test_what_would_go_is_listed_with_sizes_and_what_stays_with_the_reason() -> None:
    put(*MADE, *FOREIGN)
    inventory = take_inventory([RECIPE])
    listed = {Path(it.name).relative_to(cache_dir()).as_posix(): it for it in inventory.belongings}
    assert listed["environments/0123456789abcdef"].kind == "environment"
    assert listed["environments/0123456789abcdef"].size_bytes == 10
    assert listed[f"models/{MODEL}.json"].size_bytes == 5
    assert len(listed) == len(MADE) - 2  # an environment has two files here, and locks are not worth a line
    assert f"{cache_dir()}/models/my_model was not made by this tool" in inventory.stays


def test_a_dry_run_lists_and_removes_nothing() -> None:
    put(*MADE)
    assert f"environment  {cache_dir()}/environments/0123456789abcdef\n" in clean("--dry-run")
    assert left() == set(MADE)


def test_without_a_terminal_nothing_is_removed_unasked() -> None:
    put(*MADE)
    with pytest.raises(UsageError, match="nothing was removed") as caught:
        clean()
    assert caught.value.exit_code == 2
    assert "--yes" in (caught.value.tip or "")
    assert left() == set(MADE)


def test_an_empty_machine_has_nothing_to_clean() -> None:
    assert clean() == ""


def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "0123456789abcdef").mkdir(parents=True)
    (precious / "0123456789abcdef/thesis").write_text("years of work")
    put("models/x")
    (cache_dir() / "environments").symlink_to(precious)
    (cache_dir() / "logs").mkdir()
    (cache_dir() / "logs/20261122-121212-a1b2c3d4").symlink_to(precious)
    put("stand-in/mobiledet_edgetpu-0-0123456789abcdef/fp32/x")
    (cache_dir() / "stand-in/mobiledet_edgetpu-0-0123456789abcdef/inner").symlink_to(precious)
    clean("--yes")
    assert (precious / "0123456789abcdef/thesis").read_text() == "years of work"
    assert (cache_dir() / "environments").is_symlink()
    assert (cache_dir() / "logs/20261122-121212-a1b2c3d4").is_symlink()
    assert not (cache_dir() / "stand-in").exists()


def test_what_another_run_is_making_stays() -> None:
    put(*MADE)
    made_now = cache_dir() / "stand-in/mobiledet_edgetpu-0-0123456789abcdef"
    with exclusive(made_now):
        reasons = remove_all(take_inventory([RECIPE]))
        assert reasons == (f"{made_now} was not removed: another run is creating it",)
        assert made_now.is_dir()
        assert not (cache_dir() / "models").exists()
        assert len(list((cache_dir() / "locks").iterdir())) == 1


def test_an_environment_that_is_in_use_stays() -> None:
    environment = cache_dir() / "environments/0123456789abcdef"
    (environment / "env-1/bin").mkdir(parents=True)
    (environment / "env-1/bin/python").symlink_to(sys.executable)
    with subprocess.Popen(
        [environment / "env-1/bin/python", "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        reasons = remove_all(take_inventory([RECIPE]))
        user.communicate(b"\n")
    assert reasons == (f"{environment} was not removed: process {user.pid} is using it",)
    assert environment.is_dir()


def test_scratch_goes_when_it_is_too_old_to_be_in_use() -> None:
    put("prove-a1b2c3d4/x", "check-a1b2c3d4/x", "prove-e5f6a7b8/x", "prove-me/x")
    for old in ("prove-a1b2c3d4", "check-a1b2c3d4", "prove-me"):
        os.utime(cache_dir() / old, (0, 0))
    clean("--yes")
    assert left() == {"prove-e5f6a7b8/x", "prove-me/x"}


def test_scratch_in_the_temporary_folder_goes_when_it_is_old(own_temporary_folder: Path) -> None:
    names = ("mobiledet-runner-a1b2c3d4", "mobiledet-runner-e5f6a7b8", "mobiledet-runner", "facts-a1b2c3d4")
    old, new, *foreign = (own_temporary_folder / name for name in names)
    for folder in (old, new, *foreign):
        folder.mkdir()
        os.utime(folder, (0, 0))
    os.utime(new)
    (own_temporary_folder / "mobiledet-runner-abcdefgh").symlink_to(foreign[0])
    clean("--yes")
    assert not old.exists()
    assert all(folder.is_dir() for folder in (new, *foreign))
    assert (own_temporary_folder / "mobiledet-runner-abcdefgh").is_symlink()


def test_a_killed_run_leaves_only_scratch_that_clean_knows(own_temporary_folder: Path) -> None:
    program = "from runner.host.scratch import scratch_folder\nwith scratch_folder():\n    print(); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT_ROOT,
        env={**os.environ, "TMPDIR": str(own_temporary_folder)},
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        (scratch,) = own_temporary_folder.iterdir()
        os.utime(scratch, (0, 0))
        assert remove_all(take_inventory([RECIPE])) == (
            f"{scratch} was not removed: another run is using it",
        )
        run.kill()
    assert scratch.is_dir()
    clean("--yes")
    assert not scratch.exists()


def test_logs_of_a_run_that_still_runs_stay() -> None:
    logs = cache_dir() / "logs/20261122-121212-a1b2c3d4"
    logs.mkdir(parents=True)
    with marked(logs):
        assert remove_all(take_inventory([RECIPE])) == (f"{logs} was not removed: another run is using it",)
    clean("--yes")
    assert not logs.exists()


def test_json_lists_the_same() -> None:
    put("notes.txt", f"models/{MODEL}.json", "models/mine")
    listed = CliRunner().invoke(app, ["clean", "--dry-run", "--json"]).stdout
    assert '"kind": "model"' in listed
    assert '"size_bytes": 5' in listed
    assert "models/mine was not made by this tool" in listed
