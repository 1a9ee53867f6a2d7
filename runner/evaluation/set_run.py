"""Run a detector on all images of a set, with parallel workers and cached results.

The images are run in parts, and the detections in each part are cached in a file, so that an interrupted run
continues where it stopped. The name of the file is a digest of the images in the part. The name of its folder
is a digest of everything else that affects the detections: the model, the settings, the machine, this program
and its libraries. A cache file gets its name only when it is complete.
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
from runner.evaluation.detector import ImageRun
from runner.evaluation.images import decode_image, read_image
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
"""Number of images in a part; an interrupted worker loses at most one part."""
KEPT_FOLDERS: Final = 50
"""How many cache folders are kept. Each combination of model and settings has its own folder.

A folder takes about 6 MB for 5000 images.
"""
LIBRARIES: Final = ("ai-edge-litert", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a file is run: by ``workers`` parallel LiteRT processes, each with ``threads`` threads.

    ``timeout_s`` is per image; with ``is_forced``, cached results are ignored.
    """

    threads: int = 1
    xnnpack: bool = True
    workers: int = 1
    timeout_s: float = 60.0
    is_forced: bool = False


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The detections in some images; sizes are width and height in pixels."""

    load_s: float
    sizes: tuple[tuple[int, int], ...]
    runs: tuple[ImageRun, ...]


@dataclass(frozen=True, kw_only=True)
class SetRun:
    """The detections in all images, in order; ``kept_count`` of the images were in the cache.

    ``load_s`` is the median time that LiteRT took to load the file.
    """

    runs: tuple[ImageRun, ...]
    load_s: float
    kept_count: int


def run_on_set(detector: Detector, images: Sequence[Image], folder: Path, settings: RunSettings) -> SetRun:
    """Run a detector on images, ignoring EXIF orientation, because annotations refer to stored pixels.

    Raises:
        UsageError: an image cannot be read, or does not have the annotated size.
        IntegrityError: LiteRT rejects the file, crashes on it, or does not finish in time.
    """
    groups = [images[start : start + PART] for start in range(0, len(images), PART)]
    parts: dict[int, Part] = {}
    with (
        _Runner(detector, folder, settings) as runner,
        console.counting(len(images), "images") as tally,
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
        console.warn(f"the detections could not be cached: {runner.fault}")
    return SetRun(
        runs=tuple(run for number in range(len(groups)) for run in parts[number].runs),
        load_s=statistics.median(part.load_s for part in parts.values()),
        kept_count=tally.kept,
    )


class _Runner:
    """Runs parts in several threads; each thread takes an idle LiteRT process or starts one."""

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
        """Let all threads end after the current image."""
        self._stopped.set()

    def run(self, images: Sequence[Image]) -> tuple[Part, bool]:
        """Return the detections in a part, and whether they were in the cache."""
        contents = [read_image(self._folder / image.file_name) for image in images]
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
            pixels = decode_image(content, self._folder / image.file_name, follow_orientation=False)
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
        except OSError as problem:  # without the cache file, an interrupted run repeats this part
            self.fault = problem


def _check_sizes(images: Sequence[Image], part: Part, folder: Path) -> None:
    for image, (width, height) in zip(images, part.sizes, strict=True):
        if (width, height) != (image.width, image.height):
            raise UsageError(
                f"{folder / image.file_name} has {width} x {height} pixels, but the annotations state "
                f"{image.width} x {image.height} (image {image.id})",
                tip="use the images that were annotated: boxes are in pixels of those images",
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
    except (OSError, msgspec.DecodeError):  # missing or damaged, so the part is run again
        return None


def _remove_oldest(folder: Path) -> None:
    with contextlib.suppress(OSError):  # there is nothing yet, or another run is removing it
        homes = sorted(folder.iterdir(), key=lambda home: home.stat().st_mtime, reverse=True)
        for home in homes[KEPT_FOLDERS:]:
            shutil.rmtree(home, ignore_errors=True)
