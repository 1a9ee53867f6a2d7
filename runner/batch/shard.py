"""Split a batch into shards, for Slurm arrays and indexed Kubernetes jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.batch.jobs import BatchJob


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of ``count`` shards of a batch; ``number`` counts from 1."""

    number: int
    count: int

    def of(self, jobs: tuple[BatchJob, ...]) -> tuple[BatchJob, ...]:
        """Return every ``count``-th job, so that similar jobs, often neighbours, go to different shards."""
        return jobs[self.number - 1 :: self.count]


def read_shard(text: str) -> Shard:
    """Read ``I/N``.

    Raises:
        UsageError: it is not of this form, or there is no such shard.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--shard {text}: there is no such shard",
            tip="--shard 1/4 to --shard 4/4 are the four shards of a batch",
        )
    return Shard(number=int(found[1]), count=int(found[2]))
