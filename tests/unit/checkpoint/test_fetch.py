"""Fetching an archive gives a model directory in which every tensor is the published one."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from runner.checkpoint.fetch import archive_url, cached_model_dir, fetch_model, obtain_model_dir, origin_of
from runner.download.http import Limits
from runner.errors import DiskFullError, DownloadError, IntegrityError, UsageError
from runner.host.cache_dir import cache_dir
from runner.host.digests import digest_file
from runner.maintenance.clean import cache_kinds
from runner.recipes.recipe import Archive
from tests.disks import small_disk
from tests.loopback import send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.checkpoint.fetch import FetchedModel
    from runner.recipes.recipe import Recipe
    from tests.servers import Request, Serve

ONE_ATTEMPT: Final = Limits(attempts=1)
DATA: Final = "model.ckpt-400000.data-00000-of-00001"


@pytest.fixture
def offer(serve: Serve, tiny_recipe: Recipe) -> Callable[[bytes], Recipe]:
    """Serve these bytes at a recipe's address."""

    def start(content: bytes) -> Recipe:
        url = serve(lambda request: send(request, content))
        return replace(tiny_recipe, archive=Archive(urls=(f"{url}/tiny_model.tar.gz",)))

    return start


def spoil_values(model_dir: Path, recipe: Recipe) -> None:
    """Make the recipe expect another value, as if the checkpoint were not the published one."""
    table = recipe.variants["fp32"].tensor_table
    assert table is not None
    table.write_text(table.read_text().replace("418f98b2", "00000000"))
    assert (model_dir / "fp32" / DATA).is_file()


class TestDownload:
    def test_a_model_is_fetched_checked_and_recorded(
        self, offer: Callable[[bytes], Recipe], model_archive: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe = offer(model_archive.read_bytes())
        model = fetch_model(recipe)
        assert model.model_dir == cache_dir() / "models" / "tiny_model"
        assert (model.model_dir / "fp32" / DATA).is_file()
        assert not model.was_there
        assert model.origin is not None
        assert model.origin.source == archive_url(recipe)
        assert model.origin.archive_sha256 == digest_file(model_archive).sha256
        assert model.origin == origin_of(model.model_dir)
        assert model.verdicts["fp32"].is_published
        assert "all 33 tensors are the published ones" in capsys.readouterr().err

    def test_only_the_model_and_its_record_stay(
        self, offer: Callable[[bytes], Recipe], model_archive: Path
    ) -> None:
        fetch_model(offer(model_archive.read_bytes()))
        names = sorted(path.name for path in (cache_dir() / "models").iterdir())
        assert names == ["tiny_model", "tiny_model.json"]

    def test_the_cached_model_needs_no_network(
        self, offer: Callable[[bytes], Recipe], model_archive: Path, tiny_recipe: Recipe
    ) -> None:
        fetch_model(offer(model_archive.read_bytes()))
        assert fetch_model(tiny_recipe).was_there
        assert obtain_model_dir(tiny_recipe) == cache_dir() / "models" / "tiny_model"

    @pytest.mark.parametrize("damage", [b"", b"x" * 633])
    def test_a_damaged_cached_model_is_made_anew(
        self,
        damage: bytes,
        offer: Callable[[bytes], Recipe],
        model_archive: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        recipe = offer(model_archive.read_bytes())
        shard = fetch_model(recipe).model_dir / "fp32" / DATA
        whole = shard.read_bytes()
        shard.write_bytes(damage)
        assert not fetch_model(recipe).was_there
        assert shard.read_bytes() == whole
        assert "the cached model is damaged" in capsys.readouterr().err

    def test_no_network_names_the_ways_out(self, tiny_recipe: Recipe) -> None:
        with pytest.raises(DownloadError) as problem:
            fetch_model(tiny_recipe, limits=ONE_ATTEMPT)
        assert problem.value.exit_code == 7
        tip = str(problem.value.tip)
        assert all(way in tip for way in ("fetch --url", "--model-dir", "demo"))

    def test_other_weights_are_kept_apart_and_refused(
        self, offer: Callable[[bytes], Recipe], model_archive: Path, model_dir: Path
    ) -> None:
        recipe = offer(model_archive.read_bytes())
        spoil_values(model_dir, recipe)
        kept = cache_dir() / "models" / "tiny_model.unverified"
        with pytest.raises(IntegrityError, match="not the published weights") as problem:
            fetch_model(recipe)
        assert str(kept) in str(problem.value.tip)
        assert (kept / "fp32" / DATA).is_file()
        assert not (cache_dir() / "models" / "tiny_model").exists()
        _, pattern = cache_kinds([recipe])["models"]
        assert re.fullmatch(pattern, kept.name)  # so `clean` knows it

    def test_a_refused_archive_leaves_nothing(self, offer: Callable[[bytes], Recipe], tmp_path: Path) -> None:
        bad = tmp_path / "bad.tar.gz"
        subprocess.run(["ln", "-s", "/etc", tmp_path / "link"], check=True)
        subprocess.run(["tar", "-C", tmp_path, "-czf", bad, "link"], check=True)
        with pytest.raises(IntegrityError, match="'link' is a link"):
            fetch_model(offer(bad.read_bytes()))
        assert list((cache_dir() / "models").iterdir()) == []

    def test_an_archive_of_something_else_is_described(
        self, offer: Callable[[bytes], Recipe], tmp_path: Path
    ) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").touch()
        other = tmp_path / "other.tar"
        subprocess.run(["tar", "-C", tmp_path, "-cf", other, "photos"], check=True)
        with pytest.raises(IntegrityError, match="no folder in it contains fp32/; it contains photos"):
            fetch_model(offer(gzip.compress(other.read_bytes())))

    def test_an_incomplete_model_is_refused(
        self, offer: Callable[[bytes], Recipe], model_dir: Path, tmp_path: Path
    ) -> None:
        (model_dir / "fp32" / DATA).unlink()
        archive = tmp_path / "incomplete.tar"
        subprocess.run(["tar", "-C", model_dir.parent, "-cf", archive, model_dir.name], check=True)
        with pytest.raises(IntegrityError, match=r"the model is incomplete: .* is missing"):
            fetch_model(offer(archive.read_bytes()))

    def test_what_a_killed_run_left_is_cleared(self, model_archive: Path, tiny_recipe: Recipe) -> None:
        left = cache_dir() / "models" / ".tiny_model.unpacking"
        (left / "fp32").mkdir(parents=True)
        fetch_model(tiny_recipe, source=str(model_archive))
        assert not left.exists()

    def test_two_first_runs_share_one_download(
        self, serve: Serve, tiny_recipe: Recipe, model_archive: Path
    ) -> None:
        requests: list[str] = []
        results: list[FetchedModel] = []
        second = threading.Thread(target=lambda: results.append(fetch_model(recipe)))

        def answer(request: Request) -> None:
            requests.append(request.path)
            second.start()
            send(request, model_archive.read_bytes())

        recipe = replace(tiny_recipe, archive=Archive(urls=(f"{serve(answer)}/tiny_model.tar.gz",)))
        assert not fetch_model(recipe).was_there
        second.join()
        assert [model.was_there for model in results] == [True]
        assert requests == ["/tiny_model.tar.gz"]


class TestSeveralAddresses:
    def test_the_first_that_has_the_archive_is_used_and_recorded(
        self, serve: Serve, tiny_recipe: Recipe, model_archive: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked: list[str] = []

        def answer(request: Request) -> None:
            asked.append(request.path)
            if request.path.startswith("/gone"):
                send(request, b"no such file", status=404)
            elif request.path.startswith("/quota"):
                send(request, b"<html>Quota exceeded</html>")
            else:
                send(request, model_archive.read_bytes())

        url = serve(answer)
        folders = ("gone", "quota", "good", "never")
        urls = tuple(f"{url}/{folder}/tiny_model.tar.gz" for folder in folders)
        recipe = replace(tiny_recipe, archive=Archive(urls=urls))
        model = fetch_model(recipe, limits=ONE_ATTEMPT)
        assert model.origin is not None
        assert model.origin.source == urls[2]
        assert asked == [f"/{folder}/tiny_model.tar.gz" for folder in folders[:3]]
        warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert [urls[0] in warnings[0], urls[1] in warnings[1], len(warnings)] == [True, True, 2]
        assert "404" in warnings[0]
        assert sorted(path.name for path in (cache_dir() / "models").iterdir()) == [
            "tiny_model",
            "tiny_model.json",
        ]

    def test_an_archive_with_other_bytes_than_stated_is_not_used(
        self, serve: Serve, tiny_recipe: Recipe, model_archive: Path
    ) -> None:
        right = model_archive.read_bytes()
        other = gzip.compress(gzip.decompress(right), compresslevel=1)
        assert other != right

        def answer(request: Request) -> None:
            send(request, other if request.path.startswith("/other") else right)

        url = serve(answer)
        urls = (f"{url}/other/tiny_model.tar.gz", f"{url}/tiny_model.tar.gz")
        stated = Archive(urls=urls, sha256=digest_file(model_archive).sha256)
        model = fetch_model(replace(tiny_recipe, archive=stated))
        assert model.origin is not None
        assert model.origin.source == urls[1]

    def test_if_none_works_each_failure_is_named(self, serve: Serve, tiny_recipe: Recipe) -> None:
        url = serve(lambda request: send(request, b"no such file", status=404))
        urls = (f"{url}/a/tiny_model.tar.gz", "http://127.0.0.1:9/tiny_model.tar.gz")
        with pytest.raises(DownloadError) as problem:
            fetch_model(replace(tiny_recipe, archive=Archive(urls=urls)), limits=ONE_ATTEMPT)
        first, second = problem.value.message.splitlines()[1:]
        assert first.startswith(f"  {urls[0]}: the server answered 404")
        assert second.startswith(f"  {urls[1]}: the connection failed")
        assert "--url" in str(problem.value.tip)


class TestLocalSources:
    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_an_archive_is_unpacked_and_not_touched(
        self, scheme: str, model_archive: Path, tiny_recipe: Recipe
    ) -> None:
        before = model_archive.read_bytes()
        model = fetch_model(tiny_recipe, source=f"{scheme}{model_archive}")
        assert model.origin is not None
        assert model.origin.source == "file model.tar.gz"
        assert model_archive.read_bytes() == before

    def test_a_folder_is_copied_without_what_else_is_in_it(
        self, model_dir: Path, tiny_recipe: Recipe
    ) -> None:
        (model_dir / "fp32" / "notes.txt").touch()
        model = fetch_model(tiny_recipe, source=str(model_dir))
        assert sorted(path.name for path in (model.model_dir / "fp32").iterdir()) == [
            DATA,
            "model.ckpt-400000.index",
            "pipeline.config",
        ]
        assert (model_dir / "fp32" / "notes.txt").exists()

    def test_other_weights_of_a_user_are_not_copied_aside(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        spoil_values(model_dir, tiny_recipe)
        with pytest.raises(IntegrityError, match="not the published weights") as problem:
            fetch_model(tiny_recipe, source=str(model_dir))
        assert "--model-dir" in str(problem.value.tip)
        assert list((cache_dir() / "models").iterdir()) == []

    def test_a_wrong_folder_names_the_right_one(self, model_dir: Path, tiny_recipe: Recipe) -> None:
        with pytest.raises(UsageError) as problem:
            fetch_model(tiny_recipe, source=str(model_dir / "fp32"))
        assert f"--url {model_dir} " in str(problem.value.tip)

    def test_a_missing_file_is_a_usage_error(self, tmp_path: Path, tiny_recipe: Recipe) -> None:
        with pytest.raises(UsageError, match="there is no file or folder"):
            fetch_model(tiny_recipe, source=str(tmp_path / "nothing.tar.gz"))

    def test_a_cut_off_file_is_named(self, model_archive: Path, tiny_recipe: Recipe) -> None:
        model_archive.write_bytes(model_archive.read_bytes()[:-10])
        with pytest.raises(IntegrityError, match=f"{model_archive} is a gzip file that is cut off"):
            fetch_model(tiny_recipe, source=str(model_archive))


class TestPlaces:
    def test_a_place_of_ones_own_is_used(
        self, model_archive: Path, tiny_recipe: Recipe, tmp_path: Path
    ) -> None:
        place = tmp_path / "my models"
        model = fetch_model(tiny_recipe, source=str(model_archive), parent=place)
        assert model.model_dir == place / "tiny_model"
        assert fetch_model(tiny_recipe, parent=place).was_there

    def test_a_foreign_folder_survives(
        self, model_archive: Path, tiny_recipe: Recipe, tmp_path: Path
    ) -> None:
        foreign = tmp_path / "place" / "tiny_model" / "precious"
        foreign.mkdir(parents=True)
        with pytest.raises(UsageError, match="already exists"):
            fetch_model(tiny_recipe, source=str(model_archive), parent=tmp_path / "place")
        assert foreign.is_dir()

    def test_an_invalid_place_is_a_usage_error(
        self, model_archive: Path, tiny_recipe: Recipe, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot be used"):
            fetch_model(tiny_recipe, source=str(model_archive), parent=tmp_path / "file" / "place")

    def test_of_a_users_own_folder_no_origin_is_known(self, model_dir: Path) -> None:
        assert origin_of(model_dir) is None
        model_dir.with_name(f"{model_dir.name}.json").write_text(json.dumps({"source": 1}))
        assert origin_of(model_dir) is None


@pytest.mark.as_root
def test_a_disk_without_room_for_the_model_is_named(
    tiny_recipe: Recipe, model_dir: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "nr_inodes=4") as small:
        with pytest.raises(DiskFullError, match=f"{small}.* is full") as caught:
            fetch_model(tiny_recipe, source=str(model_dir), parent=small)
        assert list(small.iterdir()) == []
    assert caught.value.exit_code == 6
    assert "--out" in (caught.value.tip or "")


def test_what_ships_with_a_recipe_is_neither_fetched_nor_cached(tiny_recipe: Recipe, tmp_path: Path) -> None:
    shipped = replace(tiny_recipe, data_dir=tmp_path, ships_checkpoint=True)
    assert obtain_model_dir(shipped) == cached_model_dir(shipped) == tmp_path
    with pytest.raises(UsageError, match="nothing to fetch"):
        archive_url(shipped)
