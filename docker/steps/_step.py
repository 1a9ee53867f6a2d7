"""What every step has in common: one JSON object on stdout, everything else on stderr.

A step that can do what it was asked prints its result and exits 0. Input it refuses becomes
``{"error": ..., "tip": ...}`` and exit code 2; anything else that goes wrong is a traceback and exit code 1.

The folder of the steps has to be on ``sys.path``: ``python steps/NAME.py`` sees to that by itself, whoever
runs a step with ``runpy.run_path`` puts it there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import warnings
from typing import IO, TYPE_CHECKING, Any, Callable, Iterator, NoReturn

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


class InputError(Exception):
    """Input that cannot be worked with: what is wrong with which input, and what to try."""

    def __init__(self, message: str, tip: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.tip = tip


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and whose errors are refusals like any other."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            InputError: always.
        """
        raise InputError(message, tip=self.format_usage().strip())


def run(parser: Parser, work: Callable[[argparse.Namespace], dict[str, Any]]) -> None:
    """Parse the command line, do the work, print the one result; exit with 2 if that is a refusal."""
    be_quiet()
    with _stdout_for_the_result() as results:
        try:
            result = work(parser.parse_args())
        except InputError as refusal:
            print(json.dumps({"error": refusal.message, "tip": refusal.tip}), file=results)
            sys.exit(2)
        # Indented, because the engine cuts lines that are longer than 64 KiB.
        print(json.dumps(result, indent=1), file=results)


@contextlib.contextmanager
def _stdout_for_the_result() -> Iterator[IO[str]]:
    """Lead what anybody else writes to stdout, also in C++, to stderr, and yield the real one."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as results:
        os.dup2(2, 1)
        yield results


def be_quiet() -> None:
    """Keep TensorFlow 1.15 from looking for a GPU and from warning of what came after it."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    warnings.simplefilter("ignore")


def import_tensorflow() -> ModuleType:
    """Import TensorFlow's version 1 interface, and keep it from talking about its own future."""
    import tensorflow.compat.v1 as tf

    tf.logging.set_verbosity(tf.logging.ERROR)
    return tf


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path``; what is written there gets its final name only when all went well.

    Raises:
        InputError: it cannot be written.
    """
    partial = _beside(path)
    try:
        yield partial
        partial.replace(path)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that takes its place only when all went well.

    Raises:
        InputError: it cannot be written.
    """
    partial = _beside(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            shutil.rmtree(str(path))
        partial.rename(path)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    finally:
        shutil.rmtree(str(partial), ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def _unwritable(path: Path, problem: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {problem.strerror}", tip="choose another output folder")
