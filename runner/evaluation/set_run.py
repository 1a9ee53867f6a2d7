"""Run a detector on all pictures of a set: workers in parallel; what is done is not done again.

The pictures are run in parts. What is found in a part is kept in the cache, as a file that is named by the
digests of its pictures, in a folder that is named by all else that it depends on: the digest of the model,
the settings, the machine, this program and its libraries. So a run that was interrupted goes on where it
stopped. A part gets its name when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import queue
import shutil
import statistics
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from runner import console
from runner.deliver.cache import user_cache
from runner.deliver.plan import program_digest
from runner.errors import UsageError
from runner.evaluation.detector import PictureRun
from runner.evaluation.pictures import decode_picture, read_picture
from runner.host.cache_dir import cache_dir
from runner.host.digests import sha256_of
from runner.host.machine import describe_machine
from runner.host.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.evaluation.annotations import Image
    from runner.evaluation.detector import Detector, RunningDetector

FOLDER_NAME: Final = "evaluations"
PART: Final = 32
"""How many pictures a part has: what an interruption costs a worker, at most."""
KEPT_FOLDERS: Final = 50
"""How many models, with their settings, are kept; one has about 6 MB for the 5000 pictures of COCO."""
LIBRARIES: Final = ("ai-edge-litert", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a file is run. ``workers`` are LiteRT processes in parallel, each with this many threads.

    ``timeout_s`` is for one picture; with ``is_forced``, pictures are run again that the cache has.
    """

    threads: int = 1
    xnnpack: bool = True
    workers: int = 1
    timeout_s: float = 60.0
    is_forced: bool = False


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in some pictures; sizes are width and height in pixels."""

    load_s: float
    sizes: tuple[tuple[int, int], ...]
    runs: tuple[PictureRun, ...]


@dataclass(frozen=True, kw_only=True)
class SetRun:
    """What was found in all pictures, in their order; ``kept_count`` of them were in the cache.

    ``load_s`` is the median of how long LiteRT took to load the file.
    """

    runs: tuple[PictureRun, ...]
    load_s: float
    kept_count: int


def run_on_set(detector: Detector, images: Sequence[Image], folder: Path, settings: RunSettings) -> SetRun:
    """Run a detector on pictures, without their EXIF orientation: annotations refer to stored pixels.

    Raises:
        UsageError: a picture cannot be read, or has another size than the annotations say.
        IntegrityError: LiteRT rejects the file, crashes on it, or does not finish in time.
    """
    groups = [images[start : start + PART] for start in range(0, len(images), PART)]
    parts: dict[int, Part] = {}
    with (
        _Runner(detector, folder, settings) as runner,
        console.counting(len(images), "pictures") as tally,
        ThreadPoolExecutor(settings.workers, thread_name_prefix="detect") as executor,
    ):
        numbers = {executor.submit(runner.run, group): number for number, group in enumerate(groups)}
        try:
            for future in as_completed(numbers):
                part, is_kept = future.result()
                parts[numbers[future]] = part
                tally.add(len(part.runs), is_kept=is_kept)
        except BaseException:
            runner.stop()
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    if runner.fault is not None:
        console.warn(f"what was found could not be kept: {runner.fault}")
    return SetRun(
        runs=tuple(run for number in range(len(groups)) for run in parts[number].runs),
        load_s=statistics.median(part.load_s for part in parts.values()),
        kept_count=tally.kept,
    )


class _Runner:
    """Runs parts, called from several threads: each takes a LiteRT process that is idle, or starts one."""

    def __init__(self, detector: Detector, folder: Path, settings: RunSettings) -> None:
        self.fault: OSError | None = None
        self._detector, self._folder, self._settings = detector, folder, settings
        self._home = None if user_cache() is None else _home(detector, settings)
        self._idle: queue.SimpleQueue[RunningDetector] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._processes = contextlib.ExitStack()

    def __enter__(self) -> _Runner:
        if self._home is not None:
            _remove_oldest(self._home.parent)
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def stop(self) -> None:
        """Let all threads end after the picture that they run."""
        self._stopped.set()

    def run(self, images: Sequence[Image]) -> tuple[Part, bool]:
        """Return a part, and whether it was in the cache."""
        contents = [read_picture(self._folder / image.file_name) for image in images]
        file = None if self._home is None else self._home / _name(contents)
        part = None if file is None or self._settings.is_forced else _read(file)
        is_kept = part is not None
        if part is None:
            part = self._run(images, contents)
            if file is not None:
                self._keep(part, file)
        _check_sizes(images, part, self._folder)
        return part, is_kept

    def _run(self, images: Sequence[Image], contents: Sequence[bytes]) -> Part:
        sizes, runs = [], []
        running = self._process()
        for image, content in zip(images, contents, strict=True):
            if self._stopped.is_set():
                raise CancelledError
            pixels = decode_picture(content, self._folder / image.file_name, follow_orientation=False)
            sizes.append((pixels.shape[1], pixels.shape[0]))
            runs.append(running.detect(pixels))
        self._idle.put(running)
        return Part(load_s=running.load_s, sizes=tuple(sizes), runs=tuple(runs))

    def _process(self) -> RunningDetector:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        settings = self._settings
        return self._processes.enter_context(
            self._detector.running(
                threads=settings.threads, xnnpack=settings.xnnpack, timeout_s=settings.timeout_s
            )
        )

    def _keep(self, part: Part, file: Path) -> None:
        try:
            write_whole(file, msgspec.msgpack.encode(part))
        except OSError as problem:  # without it, an interrupted run begins again
            self.fault = problem


def _check_sizes(images: Sequence[Image], part: Part, folder: Path) -> None:
    for image, (width, height) in zip(images, part.sizes, strict=True):
        if (width, height) != (image.width, image.height):
            raise UsageError(
                f"{folder / image.file_name} has {width} x {height} pixels; the annotations say "
                f"{image.width} x {image.height} (picture {image.id})",
                tip="boxes are in pixels of the pictures that were annotated: use those",
            )


# --- the cache --------------------------------------------------------------------------------------------


def _home(detector: Detector, settings: RunSettings) -> Path:
    how = asdict(settings)
    del how["timeout_s"], how["is_forced"]  # they do not change the result
    everything = {
        "file": sha256_of(detector.path),
        "settings": how,
        "machine": describe_machine(),
        "program": program_digest(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    return cache_dir() / FOLDER_NAME / _digest(json.dumps(everything, sort_keys=True).encode())


def _name(contents: Sequence[bytes]) -> str:
    digests = (hashlib.sha256(content).digest() for content in contents)
    return _digest(b"".join(digests))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _read(file: Path) -> Part | None:
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=Part)
    except (OSError, msgspec.DecodeError):  # it is not there, or damaged: it is run again
        return None


def _remove_oldest(folder: Path) -> None:
    with contextlib.suppress(OSError):  # there is none yet, or another run removes them
        homes = sorted(folder.iterdir(), key=lambda home: home.stat().st_mtime, reverse=True)
        for home in homes[KEPT_FOLDERS:]:
            shutil.rmtree(home, ignore_errors=True)
