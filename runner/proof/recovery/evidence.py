"""Compare a recovered checkpoint with a recipe's tables of the published checkpoint.

Converting a recovered checkpoint only shows that some checkpoint gives the file. Variables that a file
contains unchanged show whether that checkpoint is the published one: weights and biases without a batch norm
in a float file, and quantization ranges in a quantized file. The recipe's tables list their published values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from runner.checkpoint.compare import read_tensor_table
from runner.evidence.check.compare import Range

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.checkpoint.index import Bundle
    from runner.recipes.recipe import Variant

WEIGHTS: Final = "weights and biases without a batch norm"
RANGES: Final = "quantization ranges"
SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class TableComparison:
    """How many variables of a recovered checkpoint have the published values.

    ``different`` names the variables with other values. ``not_in_file`` names those that the file does not
    determine. Activation ranges are compared by scale and zero point, because TOCO adjusts their ends.
    """

    what: str
    compared: int
    different: tuple[str, ...]
    not_in_file: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The result as one sentence."""
        equal = self.compared - len(self.different)
        said = f"{equal} of {self.compared} {self.what} are those of the published checkpoint"
        if self.different:
            more = f" and {len(self.different) - SHOWN} more" if len(self.different) > SHOWN else ""
            said += f"; these differ: {', '.join(self.different[:SHOWN])}{more}"
        return said


def compare_with_table(
    variant: Variant, bundle: Bundle, ranges: Mapping[str, float], undetermined: tuple[str, ...]
) -> TableComparison | None:
    """Compare the variables that are both in the file and in the recipe's table; None if there is no table.

    ``ranges`` are the values of the recovered checkpoint's scalar variables, by name.
    """
    if variant.data_dir is None or variant.tensor_table is None:
        return None
    if variant.is_quantized:
        return _compare_ranges(variant.data_dir / "quant_ranges.tsv", ranges, undetermined)
    return _compare_weights(variant.tensor_table, bundle)


def _compare_weights(table_path: Path, bundle: Bundle) -> TableComparison:
    table = read_tensor_table(table_path)
    names = list(_without_batch_norm(table))
    return TableComparison(
        what=WEIGHTS,
        compared=len(names),
        different=tuple(it for it in names if bundle.tensors[it].masked_crc32c != table[it][2]),
        not_in_file=(),
    )


def _without_batch_norm(names: Mapping[str, object]) -> Iterator[str]:
    """Yield the variables of convolutions that have biases and therefore no batch norm."""
    for name in names:
        scope, _, kind = name.rpartition("/")
        if kind == "biases":
            yield from (it for it in (f"{scope}/weights", f"{scope}/depthwise_weights", name) if it in names)


def _compare_ranges(
    table_path: Path, ranges: Mapping[str, float], undetermined: tuple[str, ...]
) -> TableComparison:
    published = read_ranges(table_path)
    scopes = sorted({name.rpartition("/")[0] for name in published})
    different: list[str] = []
    unknown: list[str] = []
    for scope in scopes:
        ends = (f"{scope}/min", f"{scope}/max")
        if any(it in undetermined or it not in ranges for it in ends):
            unknown += ends
        elif not _is_same_range(ends, published, ranges, is_weights=scope.endswith("weights_quant")):
            different += ends
    return TableComparison(
        what=RANGES,
        compared=len(published) - len(unknown),
        different=tuple(different),
        not_in_file=tuple(unknown),
    )


def _is_same_range(
    ends: tuple[str, str], published: Mapping[str, float], ranges: Mapping[str, float], *, is_weights: bool
) -> bool:
    wanted, found = ((each[ends[0]], each[ends[1]]) for each in (published, ranges))
    if is_weights:  # TOCO records these unchanged
        return wanted == found
    one, other = (Range(low=it[0], high=it[1]) for it in (wanted, found))
    return (np.float32(one.scale()), one.zero_point()) == (np.float32(other.scale()), other.zero_point())


def read_ranges(path: Path) -> Mapping[str, float]:
    """Read a recipe's table of quantization ranges; maps scalar variables to their values."""
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows}
