"""Shards divide a list: every job is in exactly one, in any order of execution."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.batch.jobs import BatchJob
from runner.batch.shard import Shard, read_shard
from runner.errors import UsageError


@given(count=st.integers(1, 9), jobs=st.integers(0, 30))
def test_each_job_is_in_one_shard(count: int, jobs: int) -> None:
    everything = tuple(BatchJob(name=str(number), checkpoint=Path("x")) for number in range(jobs))
    shards = [Shard(number=number, count=count).of(everything) for number in range(1, count + 1)]
    assert sorted((job for shard in shards for job in shard), key=everything.index) == list(everything)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_shard_is_read() -> None:
    assert read_shard("2/3") == Shard(number=2, count=3)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/3/5", "-1/3"])
def test_missing_shard_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="there is no such shard"):
        read_shard(text)
