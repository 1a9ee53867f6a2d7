"""Fuzz the commands that read ``.tflite`` files: each must return a result or raise a RunnerError.

    python -m bench.fuzz_tflite --count 100000 --seed 1

The inputs are small TOCO files with bytes changed, removed, inserted from another file, or cut off at the
end. Input number N of a seed is always the same, so ``--first N --count 1`` reproduces it.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.console import plain
from runner.errors import RunnerError
from runner.recipes.recipe import load_recipe
from runner.tflite.diff import diff_models
from runner.tflite.key_orders import read_post_process_options
from runner.tflite.model import read_model_file
from runner.tflite.reports import (
    diff_lines,
    summary_lines,
    verification_lines,
)
from runner.tflite.rewrite import normalize
from runner.tflite.summary import summarise
from runner.tflite.verify import verify, verify_against

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DATA: Final = Path(__file__).resolve().parents[1] / "tests" / "data" / "tiny_detector"
TELLING_WORDS: Final = (0, 1, 2, 4, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def main() -> int:
    """Fuzz as the command line requests; return 0 if no input failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    options = parser.parse_args()
    warnings.simplefilter("error")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, failures, slowest_s = fuzz(options.seed, options.first, options.count, Path(folder))
    report = {
        "seed": options.seed,
        "first": options.first,
        "count": options.count,
        "seconds": round(time.monotonic() - started, 1),
        "slowest_input_seconds": round(slowest_s, 3),
        "outcomes": dict(sorted(outcomes.items())),
        "failures": failures,
    }
    print(json.dumps(report, indent=2))  # noqa: T201 - the result
    return 1 if failures else 0


def fuzz(seed: int, first: int, count: int, folder: Path) -> tuple[Counter[str], list[str], float]:
    """Try the inputs; return the outcomes of all commands, the failures, and the slowest input's time."""
    corpus = tuple(path.read_bytes() for path in sorted(DATA.glob("*.tflite")))
    files = Files(
        damaged=folder / "damaged.tflite",
        reference=folder / "reference.tflite",
        target=folder / "target.tflite",
    )
    files.reference.write_bytes(corpus[0])
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest_s = 0.0
    for number in range(first, first + count):
        rng = random.Random(f"{seed} {number}")
        files.damaged.write_bytes(Damage(rng, corpus).done())
        started = time.monotonic()
        for name, command in COMMANDS.items():
            outcome, is_good = try_command(command, files)
            outcomes[f"{name}: {outcome}"] += 1
            if not is_good:
                failures.append(f"input {number}, {name}: {outcome}")
        slowest_s = max(slowest_s, time.monotonic() - started)
    return outcomes, failures, slowest_s


@dataclass(frozen=True, kw_only=True)
class Files:
    """The damaged input file, an intact file to compare with, and a file to write."""

    damaged: Path
    reference: Path
    target: Path


class Damage:
    """A copy of a file, damaged in one to four ways."""

    def __init__(self, rng: random.Random, corpus: tuple[bytes, ...]) -> None:
        """Choose the file to damage; ``rng`` determines the choice and the damage."""
        self._rng = rng
        self._corpus = corpus
        self._content = bytearray(rng.choice(corpus))

    def done(self) -> bytes:
        """Return the damaged bytes."""
        ways = (self._flip, self._set_word, self._cut_off, self._splice, self._remove, self._harm_options)
        for _ in range(self._rng.choice((1, 1, 1, 1, 2, 3, 4))):
            self._rng.choice((self._flip, *ways))()
        return bytes(self._content)

    def _place(self) -> int:
        return self._rng.randrange(len(self._content) + 1)

    def _flip(self) -> None:
        for _ in range(self._rng.choice((1, 1, 1, 2, 8))):
            place = self._place()
            self._content[place : place + 1] = bytes(
                byte ^ 1 << self._rng.randrange(8) for byte in self._content[place : place + 1]
            )

    def _set_word(self) -> None:
        size = len(self._content)
        if size >= 4:
            near = (size, size - 4, self._rng.randrange(size), self._rng.randrange(1 << 32))
            word = self._rng.choice(TELLING_WORDS + near)
            struct.pack_into("<I", self._content, 4 * self._rng.randrange(size // 4), word)

    def _cut_off(self) -> None:
        del self._content[self._place() :]

    def _splice(self) -> None:
        other = self._rng.choice(self._corpus)
        start, size = self._rng.randrange(len(other)), self._rng.choice((1, 4, 8, 16, 64, 256))
        place = self._place()
        self._content[place : place + self._rng.choice((0, size))] = other[start : start + size]

    def _remove(self) -> None:
        place = self._place()
        del self._content[place : place + self._rng.choice((1, 4, 16, 64))]

    def _harm_options(self) -> None:
        start = self._content.find(b"_scale\0")
        for _ in range(self._rng.randint(1, 4)):
            place = start + self._rng.randint(-200, 316)
            if 0 <= place < len(self._content):
                self._content[place] = self._rng.choice((0, 1, 0x26, 0xFF, self._rng.randrange(256)))


def try_command(command: Callable[[Files], None], files: Files) -> tuple[str, bool]:
    """Return the outcome of a command, and whether it is acceptable."""
    try:
        command(files)
    except RunnerError as problem:
        return type(problem).__name__, True
    except Exception as problem:  # noqa: BLE001 - the purpose of fuzzing is to find these
        return repr(problem), False
    return "result", True


def _inspect(files: Files) -> None:
    summary = summarise(read_model_file(files.damaged))
    _print(summary_lines(summary), summary)


def _normalize(files: Files) -> None:
    normalized = normalize(files.damaged, files.target, overwrite=True)
    _print((normalized.note,), normalized.file.order)
    options = read_post_process_options(read_model_file(normalized.target))
    if options is not None and options.order != options.fixed_order:
        raise AssertionError("the normalized file is not in the fixed order")


def _diff(files: Files) -> None:
    damaged = read_model_file(files.damaged)
    found = diff_models(read_model_file(files.reference), damaged)
    _print(diff_lines(found, show_all=True), found)


def _verify(files: Files) -> None:
    found = verify(files.damaged, RECIPE)
    _print(verification_lines(found, show_all=True), found)


def _verify_against(files: Files) -> None:
    found = verify_against(files.damaged, files.reference, RECIPE)
    _print(verification_lines(found, show_all=True), found)


def _print(lines: Iterable[str], result: object) -> None:
    """Format a result as the command does, with strict JSON, and discard it."""
    "\n".join(lines).encode()
    json.dumps(plain(result), allow_nan=False).encode()


RECIPE: Final = load_recipe()
COMMANDS: Final[dict[str, Callable[[Files], None]]] = {
    "inspect": _inspect,
    "normalize": _normalize,
    "diff": _diff,
    "verify": _verify,
    "verify --against": _verify_against,
}


if __name__ == "__main__":
    sys.exit(main())
