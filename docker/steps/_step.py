"""Shared code of the steps. A step prints one JSON object to stdout and everything else to stderr.

On success a step prints its result and exits with code 0. If it rejects its input, it prints
``{"error": ..., "tip": ...}`` and exits with code 2. Any other failure is a traceback and exit code 1.

The folder of the steps must be on ``sys.path``. ``python steps/NAME.py`` adds it; a caller that uses
``runpy.run_path`` must add it first.
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
    """Invalid input. The message names the input and states what is wrong; the tip states what to try."""

    def __init__(self, message: str, tip: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.tip = tip


class Parser(argparse.ArgumentParser):
    """An argument parser that accepts no abbreviations and reports errors as `InputError`."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Reject the command line.

        Raises:
            InputError: always.
        """
        raise InputError(message, tip=self.format_usage().strip())


def run(parser: Parser, work: Callable[[argparse.Namespace], dict[str, Any]]) -> None:
    """Parse the command line, call ``work``, print its result as JSON; exit with 2 on an `InputError`."""
    be_quiet()
    with _stdout_for_the_result() as results:
        try:
            result = work(parser.parse_args())
        except InputError as refusal:
            print(json.dumps({"error": refusal.message, "tip": refusal.tip}), file=results)
            sys.exit(2)
        # Indented, because the toolchain server splits lines longer than 64 KiB.
        print(json.dumps(result, indent=1), file=results)


@contextlib.contextmanager
def _stdout_for_the_result() -> Iterator[IO[str]]:
    """Yield the real stdout, and redirect all other writes to stdout (also from C++) to stderr."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as results:
        os.dup2(2, 1)
        yield results


def be_quiet() -> None:
    """Disable TensorFlow's GPU search, its info log and all Python warnings."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    warnings.simplefilter("ignore")


def import_tensorflow() -> ModuleType:
    """Import TensorFlow's version 1 API, with only errors logged."""
    import tensorflow.compat.v1 as tf

    tf.logging.set_verbosity(tf.logging.ERROR)
    return tf


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success the file is renamed to ``path``.

    Raises:
        InputError: the file cannot be written.
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
    """Yield a temporary folder beside ``path``; on success it replaces ``path``.

    Raises:
        InputError: the folder cannot be written.
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
