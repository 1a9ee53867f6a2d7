"""The cache of conversions: which entries are used, and which are evicted."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.deliver.cache import ABANDONED_AFTER_S, ConversionCache, _opened, user_cache
from runner.errors import DiskFullError, UsageError
from runner.host import digest_memo
from runner.host.cache_dir import cache_dir
from runner.host.digest_memo import remembered_sha256
from runner.host.digests import sha256_of
from runner.toolchain.digest import candidate_toolchain_digests
from tests.disks import small_disk

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0" * 32
OTHER_KEY = "1" * 32
NAMES = ("mobiledet.tflite", "provenance.json")
LONG_AGO_S = 1_000_000_000


@pytest.fixture
def cache(tmp_path: Path) -> ConversionCache:
    return ConversionCache(folder=tmp_path / "conversions")


@pytest.fixture
def products(tmp_path: Path) -> tuple[Path, ...]:
    folder = tmp_path / "made"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name.encode() * 1000)
    return tuple(folder / name for name in NAMES)


def made_in(folder: Path, content: str) -> tuple[Path, ...]:
    """Make the files of a conversion."""
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"{content} {name}")
    return tuple(folder / name for name in NAMES)


def test_auto_allows_the_toolchains_of_both_sources() -> None:
    both = candidate_toolchain_digests("auto")
    assert both == (*candidate_toolchain_digests("github"), *candidate_toolchain_digests("pypi"))
    assert len(set(both)) == 2


# --- what is believed -------------------------------------------------------------------------------------


def test_what_was_kept_comes_out_as_it_was(
    cache: ConversionCache, products: tuple[Path, ...], tmp_path: Path
) -> None:
    cache.keep(KEY, products)
    assert cache.take(KEY, NAMES, tmp_path / "out")
    for product in products:
        assert (tmp_path / "out" / product.name).read_bytes() == product.read_bytes()


def test_nothing_comes_out_that_was_not_kept(
    cache: ConversionCache, products: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not cache.take(KEY, NAMES, tmp_path / "out")
    cache.keep(OTHER_KEY, products)
    assert not cache.take(KEY, NAMES, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err == ""


@given(
    name=st.sampled_from((*NAMES, "entry.json")), position=st.integers(0, 60), content=st.binary(max_size=3)
)
def test_no_damage_comes_out(
    tmp_path_factory: pytest.TempPathFactory, name: str, position: int, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    made = [folder / each for each in NAMES]
    for file in made:
        file.write_text(file.name)
    cache = ConversionCache(folder=folder / "conversions")
    cache.keep(KEY, made)
    file = cache.folder / KEY / name
    whole = file.read_bytes()
    file.write_bytes(whole[:position] + content + whole[position + len(content) :])
    if cache.take(KEY, NAMES, folder / "out"):
        assert [(folder / "out" / each.name).read_bytes() for each in made] == [
            it.read_bytes() for it in made
        ]
    else:
        assert not (folder / "out").exists()
        assert not (cache.folder / KEY).exists()


@pytest.mark.parametrize("name", [*NAMES, "entry.json"])
def test_an_entry_with_a_damaged_file_is_removed_and_said_to_be(
    cache: ConversionCache,
    products: tuple[Path, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    cache.keep(KEY, products)
    (cache.folder / KEY / name).write_text("damaged")
    assert not cache.take(KEY, NAMES, tmp_path / "out")
    assert not (cache.folder / KEY).exists()
    assert not (tmp_path / "out").exists()
    assert f"damaged ({name})" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*NAMES, "entry.json"])
def test_an_entry_that_lacks_a_file_is_removed(
    cache: ConversionCache, products: tuple[Path, ...], tmp_path: Path, name: str
) -> None:
    cache.keep(KEY, products)
    (cache.folder / KEY / name).unlink()
    assert not cache.take(KEY, NAMES, tmp_path / "out")
    assert not (cache.folder / KEY).exists()


@pytest.mark.parametrize("names", [NAMES[:1], (*NAMES, "tflite_graph.pbtxt")])
def test_an_entry_of_other_files_is_not_taken(
    cache: ConversionCache, products: tuple[Path, ...], tmp_path: Path, names: tuple[str, ...]
) -> None:
    cache.keep(KEY, products)
    assert not cache.take(KEY, names, tmp_path / "out")


def test_a_killed_writer_leaves_no_entry(
    cache: ConversionCache, products: tuple[Path, ...], tmp_path: Path
) -> None:
    cache.keep(OTHER_KEY, products)
    (cache.folder / OTHER_KEY).rename(cache.folder / f".{KEY}.abcd")
    assert not cache.take(KEY, NAMES, tmp_path / "out")


def test_an_entry_that_was_damaged_can_be_made_anew(
    cache: ConversionCache, products: tuple[Path, ...], tmp_path: Path
) -> None:
    cache.keep(KEY, products)
    (cache.folder / KEY / NAMES[0]).write_text("damaged")
    cache.keep(KEY, products)
    assert cache.take(KEY, NAMES, tmp_path / "out")
    assert [path.name for path in cache.folder.iterdir()] == [KEY]


def test_an_entry_replaced_while_it_is_copied_is_taken_whole_and_stays(
    cache: ConversionCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = made_in(tmp_path / "old", "old"), made_in(tmp_path / "new", "new")
    cache.keep(KEY, old)
    slow = cache.folder / KEY / NAMES[0]  # the reader waits here until the entry has been replaced
    slow.unlink()
    os.mkfifo(slow)
    with ThreadPoolExecutor() as executor:
        taken = executor.submit(cache.take, KEY, NAMES, tmp_path / "out")
        with slow.open("wb") as pipe:
            cache.keep(KEY, new)
            pipe.write(old[0].read_bytes())
        assert taken.result()
    assert [(tmp_path / "out" / name).read_bytes() for name in NAMES] == [it.read_bytes() for it in new]
    assert cache.take(KEY, NAMES, tmp_path / "out2")
    assert "damaged" not in capsys.readouterr().err


def test_a_damaged_entry_that_was_just_replaced_is_not_removed(
    cache: ConversionCache, tmp_path: Path
) -> None:
    """The new entry appears after the damage was found and before the old one is removed."""
    cache.keep(KEY, made_in(tmp_path / "old", "old"))
    with _opened(cache.folder / KEY) as damaged:
        cache.keep(KEY, made_in(tmp_path / "new", "new"))
        cache._remove(cache.folder / KEY, damaged)
    assert cache.take(KEY, NAMES, tmp_path / "out")


@pytest.mark.as_root
def test_a_full_disk_is_not_taken_for_a_damaged_entry(
    cache: ConversionCache, products: tuple[Path, ...], tmp_path: Path
) -> None:
    products[0].write_bytes(bytes(1 << 20))
    cache.keep(KEY, products)
    with small_disk(tmp_path / "small", "size=64k") as out, pytest.raises(DiskFullError, match="full"):
        cache.take(KEY, NAMES, out / "fp32")
    assert cache.take(KEY, NAMES, tmp_path / "out")


def test_a_conversion_that_cannot_be_kept_is_no_error(
    products: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a_file").write_text("")
    ConversionCache(folder=tmp_path / "a_file" / "conversions").keep(KEY, products)
    assert "could not be cached" in capsys.readouterr().err


# --- how much is kept -------------------------------------------------------------------------------------


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    product = tmp_path / "big"
    product.write_bytes(bytes(600_000))
    cache = ConversionCache(folder=tmp_path / "conversions", limit_mib=2)
    for number in range(3):
        cache.keep(f"{number:032x}", [product])
        os.utime(cache.folder / f"{number:032x}", (LONG_AGO_S + number,) * 2)
    assert cache.take(f"{0:032x}", ["big"], tmp_path / "out")
    cache.keep(f"{3:032x}", [product])
    assert sorted(int(path.name, 16) for path in cache.folder.iterdir()) == [0, 2, 3]


def test_what_killed_runs_left_goes_after_a_while(cache: ConversionCache, products: tuple[Path, ...]) -> None:
    old, new = cache.folder / f".{KEY}.old", cache.folder / f".{KEY}.new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (new.stat().st_mtime - 2 * ABANDONED_AFTER_S,) * 2)
    cache.keep(OTHER_KEY, products)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(("value", "limit_mib"), [("", 2048), ("100", 100)])
def test_the_variable_says_how_much_is_kept(
    monkeypatch: pytest.MonkeyPatch, value: str, limit_mib: int
) -> None:
    monkeypatch.setenv("RUNNER_CACHE_MIB", value)
    cache = user_cache()
    assert cache is not None
    assert cache.limit_mib == limit_mib


def test_zero_switches_the_cache_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CACHE_MIB", "0")
    assert user_cache() is None


@pytest.mark.parametrize("value", ["-1", "1.5", "2g", "٣"])
def test_what_is_no_number_of_mib_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RUNNER_CACHE_MIB", value)
    with pytest.raises(UsageError, match="RUNNER_CACHE_MIB"):
        user_cache()


# --- files that are digested once -------------------------------------------------------------------------


@pytest.fixture
def settled_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that has not changed for long enough."""
    monkeypatch.setattr(digest_memo, "SETTLED_AFTER_NS", -1)
    file = tmp_path / "data"
    file.write_text("one")
    return file


def forge_memo(text: str) -> None:
    for memo in (cache_dir() / digest_memo.FOLDER_NAME).iterdir():
        memo.write_text(text)


def test_an_unchanged_file_is_not_read_again(settled_file: Path) -> None:
    assert remembered_sha256(settled_file) == sha256_of(settled_file)
    folder = cache_dir() / digest_memo.FOLDER_NAME
    (memo,) = folder.iterdir()
    memo.write_text(json.dumps({**json.loads(memo.read_text()), "sha256": "remembered"}))
    assert remembered_sha256(settled_file) == "remembered"


def test_a_change_that_keeps_size_and_time_is_noticed(settled_file: Path) -> None:
    remembered_sha256(settled_file)
    times = settled_file.stat()
    while settled_file.stat().st_ctime_ns == times.st_ctime_ns:  # the clock of a file system is coarse
        settled_file.write_text("two")
    os.utime(settled_file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert remembered_sha256(settled_file) == sha256_of(settled_file)


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("one")
    assert remembered_sha256(file) == sha256_of(file)
    assert not (cache_dir() / digest_memo.FOLDER_NAME).exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"state": 1, "sha256": 2}'])
def test_a_damaged_memo_is_ignored(settled_file: Path, text: str) -> None:
    remembered_sha256(settled_file)
    forge_memo(text)
    assert remembered_sha256(settled_file) == sha256_of(settled_file)
