"""Write the measurements as a Markdown page: medians, ratios, and the time of each export phase."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PICTURES: Final = 200
EVALUATE: Final = f"evaluate, {PICTURES} images"
LOOP: Final = f"plain LiteRT loop, {PICTURES} images"
BASELINES: Final = {
    "fp32, cold": "fp32, by hand",
    "fp32, warm": "fp32, by hand",
    "uint8, cold": "uint8, by hand",
    "uint8, warm": "uint8, by hand",
    "build-all, cold": "both, by hand",
    "build-all with check, cold": "both, by hand",
    "eight in a row": "both, by hand",
    "build-all, cached": "both, by hand",
    EVALUATE: LOOP,
}
"""For each line, the line that it is compared with; eight in a row is compared with four times that line."""

BOUNDS: Final = (
    ("build-all, cold", "wall ratio", 0.55),
    ("fp32, cold", "wall ratio", 0.75),
    ("fp32, warm", "CPU ratio", 0.5),
    ("uint8, warm", "CPU ratio", 0.8),
    ("build-all, cached", "wall s", 0.35),
    (EVALUATE, "CPU ratio", 1.5),
    ("--help", "wall s", 0.15),
)
"""The limits that the measurements should stay below."""

ORDER: Final = ("fp32, by hand", "uint8, by hand", "both, by hand", LOOP, *BASELINES, "--help")

HEAD: Final = """# Benchmark results

Written by `make bench`. The numbers are from one run on one machine; the ratios are comparable elsewhere.

* **by hand**: export and TOCO as commands in the container, one after the other; the container is already
  running and the config is already edited.
* **cold**: the program as a user starts it, without the conversion cache: container start, config edit,
  digests and provenance included, with `--no-check` unless the line states otherwise.
* **warm**: one conversion in an open session.
* **eight in a row**: both variants four times in one session, one after the other; compared with four times
  by hand.
* **evaluate**: the float stand-in on 200 JPEGs of 640 x 480, on all cores, with start and scoring. The
  **plain LiteRT loop** runs the same file on the same images in one process with one thread, and resizes
  with Pillow.
* In the lines cold, cached and `--help`, CPU and memory are those of the whole machine, including the daemon;
  mapped files are not counted. In the other lines, the CPU is that of the measured processes, and the memory
  is that of the largest of them, including mapped files such as TensorFlow's library.

"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement."""

    wall_s: float
    cpu_s: float
    peak_mib: float


Samples: TypeAlias = "Mapping[str, Sequence[Sample]]"
Steps: TypeAlias = "Mapping[str, Sequence[float]]"
Profiles: TypeAlias = "Mapping[str, Mapping[str, Mapping[str, float]]]"


def describe_machine() -> str:
    """Describe the hardware and software of the machine, without its name."""
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    docker = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cpus = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    }
    linux = ".".join(platform.release().split(".")[:2])
    return (
        f"{os.cpu_count()} cores ({', '.join(sorted(cpus))}), {memory_gib:.0f} GiB of memory, "
        f"Linux {linux}, Docker {docker or 'none'}, Python {platform.python_version()}"
    )


def write_report(
    path: Path,
    samples: Samples,
    steps_s: Steps,
    profiles: Profiles,
    machine: str,
    others: Sequence[float],
    more: Sequence[str],
) -> None:
    """Write the report; ``more`` are the lines of further sections."""
    date = datetime.now(timezone.utc).strftime("%d %B %Y")
    lines = [
        HEAD + f"{date}; medians of {len(others)} runs (warm: of {len(samples['fp32, warm'])}).",
        f"{machine}.",
        f"CPU use by other processes before each run: {', '.join(f'{share:.0%}' for share in others)}.",
        "The CPU and memory of the cold and cached lines include these processes, which also slow down the",
        "measured ones: build-all, which uses several cores, more than the commands by hand, which use one.",
        "",
        *_table(samples),
        "",
        "All runs gave the same sha256 for each variant; otherwise the benchmark exits with an error.",
        "",
        "## Images",
        "",
        *_rates(samples),
        "",
        "## Limits",
        "",
        *_bounds(samples),
        "",
        "## Where a cold build-all spends its time",
        "",
        "Seconds of the slower variant, uint8, while fp32 is converted in parallel; with `--no-check`.",
        "",
        "| | s |",
        "|---|---:|",
        *(f"| {name} | {statistics.median(seconds):.2f} |" for name, seconds in steps_s.items()),
        "",
        "## Where an export spends its time",
        "",
        "CPU seconds by phase, measured in a separate process with a timer around each phase, without and",
        "with the speed-ups of `docker/server/speedups.py`. A warm job does not import anything.",
        "",
        *_phases(profiles),
        *(("", *more) if more else ()),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _table(samples: Samples) -> Iterator[str]:
    yield "| | wall s | CPU s | memory MiB | wall ratio | CPU ratio |"
    yield "|---|---:|---:|---:|---:|---:|"
    for title in ORDER:
        wall, cpu, peak = (_median(samples[title], it) for it in (_wall, _cpu, _peak))
        ratios = [_ratio(samples, title, it) for it in (_wall, _cpu)]
        shown = " | ".join("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        yield f"| {title} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {shown} |"


def _rates(samples: Samples) -> Iterator[str]:
    yield "| | images per second | images per second of a core |"
    yield "|---|---:|---:|"
    for title in (LOOP, EVALUATE):
        wall, cpu = (PICTURES / _median(samples[title], it) for it in (_wall, _cpu))
        yield f"| {title} | {wall:.1f} | {cpu:.1f} |"


def _bounds(samples: Samples) -> Iterator[str]:
    yield "| | limit | measured | |"
    yield "|---|---:|---:|---|"
    for title, what, bound in BOUNDS:
        value = {
            "wall ratio": lambda title=title: _ratio(samples, title, _wall),
            "CPU ratio": lambda title=title: _ratio(samples, title, _cpu),
            "wall s": lambda title=title: _median(samples[title], _wall),
        }[what]()
        yield f"| {title}, {what} | {bound} | {value:.2f} | {'kept' if value <= bound else '**missed**'} |"


def _phases(profiles: Profiles) -> Iterator[str]:
    columns = [(variant, title) for variant in profiles for title in profiles[variant]]
    phases = dict.fromkeys(phase for variant, title in columns for phase in profiles[variant][title])
    yield "| | " + " | ".join(f"{variant}, {title}" for variant, title in columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    for phase in phases:
        seconds = [profiles[variant][title].get(phase, 0.0) for variant, title in columns]
        yield f"| {phase} | " + " | ".join(f"{it:.2f}" for it in seconds) + " |"
    totals = [sum(profiles[variant][title].values()) for variant, title in columns]
    yield "| all | " + " | ".join(f"{it:.2f}" for it in totals) + " |"


def _ratio(samples: Samples, title: str, what: Callable[[Sample], float]) -> float | None:
    baseline = BASELINES.get(title)
    if baseline is None:
        return None
    conversions = 4 if title == "eight in a row" else 1
    return _median(samples[title], what) / _median(samples[baseline], what) / conversions


def median_sample(samples: Sequence[Sample]) -> Sample:
    """Return the medians of time, CPU and memory."""
    wall_s, cpu_s, peak_mib = (_median(samples, it) for it in (_wall, _cpu, _peak))
    return Sample(wall_s=wall_s, cpu_s=cpu_s, peak_mib=peak_mib)


def _median(samples: Sequence[Sample], what: Callable[[Sample], float]) -> float:
    return statistics.median(map(what, samples))


def _wall(sample: Sample) -> float:
    return sample.wall_s


def _cpu(sample: Sample) -> float:
    return sample.cpu_s


def _peak(sample: Sample) -> float:
    return sample.peak_mib
