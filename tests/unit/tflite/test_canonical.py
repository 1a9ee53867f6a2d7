"""Normalizing: the published file if the digests match, else the fixed key order."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import IntegrityError, UsageError
from runner.host.digests import new_hash
from runner.recipes.recipe import PublishedIdentity
from runner.tflite.canonical import MAX_ORDERS, find_published, normalize_keys
from runner.tflite.key_orders import order_count, possible_orders, read_post_process_options, write_flexbuffer
from runner.tflite.model import read_model
from tests.altered import with_description_in_options, with_other_blob, with_other_metadata, with_other_weight
from tests.unit.fixtures.detector import CONV_WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.fixtures.detector import IdentityOf

FIXED = {
    "fp32": "421a5a1c49ed136e0b14c9607ed35519a6887b2b42fa64b4d977466d1b442c1b",
    "uint8": "c93fd17c6621e9918811e865f54f6ba91f2aaddf89d568acb5c5d298862d66af",
}


def test_every_run_is_normalized_to_the_same_pinned_file(runs: tuple[bytes, ...], kind: str) -> None:
    normalized = [normalize_keys(run, None) for run in runs]
    assert {it.digests.sha256 for it in normalized} == {FIXED[kind]}
    assert {(it.matches_published, it.order_count) for it in normalized} == {(False, 44)}


def test_normalizing_twice_changes_nothing(uint8_run: bytes) -> None:
    once = normalize_keys(uint8_run, None).content
    assert normalize_keys(once, None).content == once


def test_digests_are_those_of_the_content(uint8_run: bytes) -> None:
    normalized = normalize_keys(uint8_run, None)
    assert normalized.digests.sha256 == hashlib.sha256(normalized.content).hexdigest()
    assert normalized.digests.git_blob == hashlib.sha1(b"blob 4320\0" + normalized.content).hexdigest()


def test_a_published_run_is_matched_from_every_other(
    runs: tuple[bytes, ...], identity_of: IdentityOf
) -> None:
    published = identity_of(runs[4])
    for run in runs:
        normalized = normalize_keys(run, published)
        assert normalized.content == runs[4]
        assert normalized.matches_published
        assert normalized.min_runtime_version == normalized.raw_min_runtime_version


def test_a_published_run_of_another_toco_is_matched(
    runs: tuple[bytes, ...], other_toco: bytes, identity_of: IdentityOf
) -> None:
    normalized = normalize_keys(runs[0], identity_of(other_toco))
    assert normalized.content == other_toco
    assert normalized.matches_published
    assert (normalized.raw_min_runtime_version, normalized.min_runtime_version) == ("1.5.0", "1.14.0")


@pytest.mark.parametrize("known", ["md5", "git_blob", "sha1", "sha256"])
def test_a_published_run_is_matched_by_whatever_digest_is_known(runs: tuple[bytes, ...], known: str) -> None:
    digest = new_hash(known, len(runs[4]))
    digest.update(runs[4])
    published = replace(PublishedIdentity(), **{known: digest.hexdigest()})  # type: ignore[arg-type]
    assert normalize_keys(runs[0], published).content == runs[4]
    assert not normalize_keys(runs[0], replace(published, size_bytes=17)).matches_published


def test_one_digest_alone_is_no_match(runs: tuple[bytes, ...], identity_of: IdentityOf, kind: str) -> None:
    published = identity_of(runs[4])
    wrong: dict[str, Any] = {"md5": "0" * 32, "git_blob": "0" * 40, "sha1": "0" * 40, "sha256": "0" * 64}
    for half in (replace(published, **{name: digest}) for name, digest in wrong.items()):
        normalized = normalize_keys(runs[0], half)
        assert not normalized.matches_published
        assert normalized.digests.sha256 == FIXED[kind]


def test_other_weights_do_not_match(uint8_run: bytes, identity_of: IdentityOf) -> None:
    normalized = normalize_keys(with_other_weight(uint8_run, CONV_WEIGHTS), identity_of(uint8_run))
    assert not normalized.matches_published
    assert normalized.order is not None
    assert normalized.order == possible_orders(normalized.order)[0]


def test_metadata_of_no_known_toco_is_left_as_it_is(uint8_run: bytes, identity_of: IdentityOf) -> None:
    normalized = normalize_keys(with_other_metadata(uint8_run), identity_of(uint8_run))
    assert not normalized.matches_published
    assert normalized.min_runtime_version == "9.9.9"


def test_without_the_operator_the_bytes_stay(without_post_processing: bytes, identity_of: IdentityOf) -> None:
    normalized = normalize_keys(without_post_processing, None)
    assert normalized.content == without_post_processing
    assert (normalized.order, normalized.order_count) == (None, None)
    assert not normalized.matches_published
    assert normalize_keys(without_post_processing, identity_of(without_post_processing)).matches_published


def test_an_impossible_key_order_is_replaced_and_reported(uint8_run: bytes) -> None:
    options = read_post_process_options(read_model(uint8_run))
    assert options is not None
    odd = with_other_blob(uint8_run, write_flexbuffer(tuple(sorted(options.order)), options.values))
    normalized = normalize_keys(odd, None)
    assert not normalized.raw_order_is_possible
    assert normalized.digests.sha256 == FIXED["uint8"]


def test_keys_made_to_share_a_bucket_are_not_searched(uint8_run: bytes, identity_of: IdentityOf) -> None:
    model = read_model(uint8_run)
    options = read_post_process_options(model)
    assert options is not None
    clashing = ("_z", "`u", "ap", "bk", "cf", "da")  # 5 * first + second is the same for all
    assert order_count(clashing) == 720 > MAX_ORDERS
    odd = replace(options, order=clashing, values=dict.fromkeys(clashing, 1))
    assert find_published(model, odd, identity_of(uint8_run)) is None
    assert find_published(model, options, identity_of(uint8_run)) == uint8_run


def test_the_raw_file_is_never_modified(tmp_path: Path, uint8_run: bytes) -> None:
    raw = tmp_path / "raw.tflite"
    raw.write_bytes(uint8_run)
    raw.chmod(0o444)
    assert normalize_keys(raw, None).content != uint8_run
    assert raw.read_bytes() == uint8_run


def test_a_missing_raw_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        normalize_keys(tmp_path / "nothing.tflite", None)


def test_a_damaged_raw_file_is_an_integrity_error(uint8_run: bytes) -> None:
    with pytest.raises(IntegrityError):
        normalize_keys(uint8_run[:2000], None)
    with pytest.raises(IntegrityError):
        normalize_keys(with_other_blob(uint8_run, bytes(316)), None)


def test_options_that_share_bytes_with_the_rest_are_an_integrity_error(uint8_run: bytes) -> None:
    with pytest.raises(IntegrityError, match="share bytes"):
        normalize_keys(with_description_in_options(uint8_run), None)
