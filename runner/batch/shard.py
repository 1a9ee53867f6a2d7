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
    """One of ``count`` shards of a batch; ``number`` starts at 1."""

    number: int
    count: int

    def of(self, jobs: tuple[BatchJob, ...]) -> tuple[BatchJob, ...]:
        """Return every ``count``-th job, so that neighbours, which are often similar, are spread out."""
        return jobs[self.number - 1 :: self.count]


def read_shard(text: str) -> Shard:
    """Parse the value of ``--shard``: ``I/N`` is shard I of N.

    Raises:
        UsageError: the text does not have this form, or there is no such shard.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--shard {text}: there is no such shard",
            tip="for four shards, use --shard 1/4 to --shard 4/4",
        )
    return Shard(number=int(found[1]), count=int(found[2]))
