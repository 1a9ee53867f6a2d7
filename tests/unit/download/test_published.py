"""The published files are verified by both digests, or refused with their name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import pytest
from typer.testing import CliRunner

from runner.commands.fetch import app
from runner.download.http import Limits
from runner.download.published import cached_published_files, fetch_published
from runner.errors import ConfigError, DownloadError, IntegrityError, RunnerError, UsageError
from runner.host.cache_dir import cache_dir
from runner.host.digests import digest_bytes
from runner.recipes.recipe import PublishedIdentity, load_recipe
from tests.loopback import send

if TYPE_CHECKING:
    from pathlib import Path

    from runner.recipes.recipe import Recipe
    from tests.servers import Serve

MODEL: Final = b"\x1c\0\0\0TFL3 a model that somebody published"
OTHER: Final = b"\x1c\0\0\0TFL3 a model that nobody published"


@pytest.fixture
def offered() -> list[bytes]:
    """The content that the server of `recipe` sends; a test may change it."""
    return [MODEL]


@pytest.fixture
def recipe(serve: Serve, tiny_recipe: Recipe, offered: list[bytes]) -> Recipe:
    """A recipe with one published file."""
    digests = digest_bytes(MODEL)
    url = serve(lambda request: send(request, offered[0]))
    identity = PublishedIdentity(md5=digests.md5, git_blob=digests.git_blob, url=f"{url}/mobiledet.tflite")
    variant = replace(tiny_recipe.variants["fp32"], published=identity)
    return replace(tiny_recipe, variants=MappingProxyType({"fp32": variant}))


def test_a_published_file_is_fetched_once(recipe: Recipe, offered: list[bytes]) -> None:
    (file,) = fetch_published(recipe)
    assert file.path.read_bytes() == MODEL
    assert cached_published_files(recipe) == {"fp32": file.path}
    offered[0] = b"not asked for"
    assert fetch_published(recipe) == (file,)


def test_a_damaged_cached_file_is_fetched_anew(recipe: Recipe) -> None:
    (file,) = fetch_published(recipe)
    file.path.write_bytes(OTHER)
    assert cached_published_files(recipe) == {}
    assert fetch_published(recipe)[0].path.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (OTHER, r"a TFLite model, but not the published one: MD5 \w+ instead of \w+, git blob"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 17\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><title>Sign in</title>", "an HTML page instead of a TFLite model.*: Sign in"),
        (b"", "nothing"),
    ],
)
def test_what_is_not_the_published_file_is_named(
    content: bytes, said: str, recipe: Recipe, offered: list[bytes]
) -> None:
    offered[0] = content
    with pytest.raises(IntegrityError, match=said):
        fetch_published(recipe)
    assert list((cache_dir() / "published" / recipe.name).iterdir()) == []


@pytest.mark.parametrize("digest", ["md5", "git_blob"])
def test_one_digest_alone_is_not_enough(digest: str, recipe: Recipe) -> None:
    variant = recipe.variants["fp32"]
    assert variant.published is not None
    wrong: dict[str, Any] = {digest: "0" * 32}
    doubtful = replace(variant, published=replace(variant.published, **wrong))
    with pytest.raises(IntegrityError, match="not the published one"):
        fetch_published(replace(recipe, variants=MappingProxyType({"fp32": doubtful})))


def test_a_folder_can_be_the_source(recipe: Recipe, offered: list[bytes], tmp_path: Path) -> None:
    offered[0] = b"not asked for"
    (tmp_path / "mobiledet.tflite").write_bytes(MODEL)
    (file,) = fetch_published(recipe, source=str(tmp_path), parent=tmp_path / "out")
    assert file.path == tmp_path / "out" / "mobiledet.tflite"
    assert file.path.read_bytes() == MODEL


def test_a_wrong_file_in_a_folder_is_named(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mobiledet.tflite").write_bytes(OTHER)
    with pytest.raises(IntegrityError, match="not the published one"):
        fetch_published(recipe, source=str(tmp_path))
    (tmp_path / "mobiledet.tflite").unlink()
    with pytest.raises(UsageError, match="there is no file or folder"):
        fetch_published(recipe, source=str(tmp_path))


@pytest.mark.parametrize("from_folder", [True, False])
def test_a_foreign_file_survives(from_folder: bool, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mobiledet.tflite").write_bytes(MODEL)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mobiledet.tflite").write_bytes(OTHER)
    with pytest.raises(RunnerError, match="is"):
        fetch_published(recipe, source=str(tmp_path) if from_folder else None, parent=out)
    assert (out / "mobiledet.tflite").read_bytes() == OTHER


def test_no_network_names_the_ways_out(recipe: Recipe) -> None:
    with pytest.raises(DownloadError) as problem:
        fetch_published(recipe, source="http://127.0.0.1:9", limits=Limits(attempts=1))
    assert "fetch --published --url FOLDER" in str(problem.value.tip)


def test_a_recipe_without_published_files_says_so(recipe: Recipe) -> None:
    variant = replace(recipe.variants["fp32"], published=None)
    with pytest.raises(ConfigError, match="no published files"):
        fetch_published(replace(recipe, variants=MappingProxyType({"fp32": variant})))


class TestCommand:
    def test_help_says_what_it_does(self) -> None:
        shown = CliRunner().invoke(app, ["--help"])
        assert shown.exit_code == 0
        plain = re.sub(r"\x1b\[[\d;]*m", "", shown.stdout)
        assert all(flag in plain for flag in ("--url", "--published", "--out", "--cache-dir", "--json"))

    def test_the_model_directory_is_the_result(
        self, model_archive: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runner.recipes.recipe.load_recipe", lambda *_: tiny_recipe)
        cache = tmp_path / "another cache"
        argv = ["--url", str(model_archive), "--cache-dir", str(cache)]
        shown = CliRunner().invoke(app, argv, catch_exceptions=False)
        assert shown.stdout == f"{cache / 'models' / 'tiny_model'}\n"

    def test_json_is_all_there_is_on_stdout(
        self, model_archive: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runner.recipes.recipe.load_recipe", lambda *_: tiny_recipe)
        shown = CliRunner().invoke(app, ["--url", str(model_archive), "--json"], catch_exceptions=False)
        result = json.loads(shown.stdout)
        assert result["variants"]["fp32"]["matching_tensors"] == 33
        assert result["origin"]["source"] == "file model.tar.gz"

    def test_published_files_are_the_result(
        self, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runner.recipes.recipe.load_recipe", lambda *_: recipe)
        out = tmp_path / "out"
        shown = CliRunner().invoke(app, ["--published", "--out", str(out)], catch_exceptions=False)
        assert shown.stdout == f"{out / 'mobiledet.tflite'}\n"

    def test_failure_is_an_error_of_ours(self, tmp_path: Path) -> None:
        shown = CliRunner().invoke(app, ["--url", str(tmp_path / "nothing")])
        assert isinstance(shown.exception, UsageError)
        assert shown.stdout == ""


def test_the_recipes_addresses_end_in_the_published_names() -> None:
    for variant in load_recipe().variants.values():
        assert variant.published is not None
        assert str(variant.published.url).endswith(f"/{variant.file_name}")
