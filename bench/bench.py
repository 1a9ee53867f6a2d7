"""Compare the speed of this program with running the commands by hand, and write ``bench/RESULTS.md``.

    python bench/bench.py [--runs 5] [--no-batches] [--output bench/RESULTS.md]

By hand means that a user types the commands into the same container: export and TOCO, for one variant after
the other. The checkpoint is the stand-in. The numbers are only valid on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - after sys.path is set
from batches import prepare  # noqa: E402 - in the same folder
from PIL import Image  # noqa: E402
from report import (  # noqa: E402 - in the same folder
    EVALUATE,
    LOOP,
    PICTURES,
    Sample,
    describe_machine,
    median_sample,
    write_report,
)

from runner import console  # noqa: E402 - after sys.path is set
from runner.commands.options import ToolchainOptions, choose_engine  # noqa: E402
from runner.convert.model_facts import stated_facts  # noqa: E402
from runner.convert.pipeline import Workplace, convert  # noqa: E402
from runner.convert.speedups import SPEEDUPS  # noqa: E402
from runner.convert.stand_in import make_stand_in  # noqa: E402
from runner.deliver.plan import PlanRequest, make_plan  # noqa: E402
from runner.engines.base import Folders, Job  # noqa: E402
from runner.host.digests import sha256_of  # noqa: E402
from runner.recipes.recipe import load_recipe  # noqa: E402
from runner.scripts.run import ScriptOptions  # noqa: E402
from runner.tflite.canonical import normalize_keys  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.convert.plan import ConversionPlan
    from runner.engines.base import JobResult, Session, Stream
    from runner.recipes.recipe import Recipe

VARIANTS: Final = ("fp32", "uint8")
CONVERSIONS: Final = (*VARIANTS, "build-all")
SLOWER: Final = "uint8"
JOBS_IN_A_ROW: Final = 8
SAMPLE_S: Final = 0.1
LISTEN_S: Final = 3.0


def main() -> None:
    """Make the stand-in, measure everything once per round, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="number of measurement rounds")
    parser.add_argument("--no-batches", action="store_true", help="leave out batches and clusters")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/RESULTS.md")
    console.print_messages()
    arguments = parser.parse_args()
    recipe = load_recipe()
    engine = choose_engine(ToolchainOptions(base_image=os.environ.get("RUNNER_BASE_IMAGE")))
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        options = ScriptOptions(log_dir=Path(scratch) / "logs")
        model_dir = make_stand_in(engine, recipe, seed=0, options=options)
        bench = Bench(recipe=recipe, model_dir=model_dir, scratch=Path(scratch), options=options)
        built = bench.new_folder()
        bench.program("build-all", "--no-check", "--out", built, cache=True)  # for "cached"
        pictures = bench.draw_pictures()
        folders = Folders(read_only=(model_dir,), writable=(Path(scratch),))
        with engine.open(folders, {}) as session:
            profiles = {name: bench.profile(session, name) for name in VARIANTS}
        others: list[float] = []

        def write(more: tuple[str, ...] = ()) -> None:
            results = (bench.samples, bench.steps_s, profiles, describe_machine(), others, more)
            write_report(arguments.output, *results)

        for number in range(arguments.runs):
            others.append(busy_share())
            console.note(f"round {number + 1} of {arguments.runs}; other work: {others[-1]:.0%}")
            bench.measure_programs()
            bench.measure_pictures(built / "fp32" / recipe.variants["fp32"].file_name, pictures)
            bench.measure_steps()
            with engine.open(folders, {}) as session:
                bench.measure_by_hand(session)
                bench.measure_in_a_row(session)
            bench.check_digests()
            # Written after each round, so that an interrupted run leaves its results.
            write()
        if not arguments.no_batches:
            by_hand = {name: median_sample(bench.samples[f"{name}, by hand"]) for name in VARIANTS}
            write(tuple(prepare(bench, engine, Path(scratch)).measure(by_hand)))
    console.result(str(arguments.output))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The inputs and the results of the measurements.

    ``steps_s`` contains the seconds of each step of the slower variant in a cold ``build-all``. ``digests``
    contains the sha256 of all final files, by variant.
    """

    recipe: Recipe
    model_dir: Path
    scratch: Path
    options: ScriptOptions
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    steps_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    digests: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    plans: dict[str, ConversionPlan] = field(default_factory=dict)

    def measure_programs(self) -> None:
        """Measure the program, started as a user would."""
        for variant in VARIANTS:
            with self.measuring(f"{variant}, cold"):
                self.program(variant, "--no-check", "--out", self.new_folder())
        for title, flags in (("build-all, cold", ["--no-check"]), ("build-all with check, cold", [])):
            with self.measuring(title):
                self.program("build-all", *flags, "--out", self.new_folder())
        out = self.new_folder()
        with self.measuring("build-all, cached"):
            self.program("build-all", "--no-check", "--out", out, cache=True)
        with self.measuring("--help"):
            self.program("--help")

    def draw_pictures(self) -> Path:
        """Make a set of JPEGs of COCO's usual size in a new folder; each is noise, with one annotated box."""
        folder, random = self.new_folder(), np.random.default_rng(0)
        (folder / "images").mkdir()
        images, boxes = [], []
        for number in range(1, PICTURES + 1):
            name = f"{number}.jpg"
            noise = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).resize((640, 480))
            noise.save(folder / "images" / name, quality=90)
            images.append({"id": number, "file_name": name, "width": 640, "height": 480})
            boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, 64, 48]})
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "it"}]}
        (folder / "set.json").write_text(json.dumps(content), "utf-8")
        return folder

    def measure_pictures(self, file: Path, folder: Path) -> None:
        """Measure `evaluate` and a plain loop on the same images."""
        self.process(LOOP, [sys.executable, str(ROOT / "bench/litert_loop.py"), file, folder / "images"])
        labelled = ("--annotations", folder / "set.json", "--images", folder / "images")
        self.process(EVALUATE, [sys.executable, "-m", "runner", "evaluate", file, *labelled])

    def process(self, title: str, command: Sequence[str | Path]) -> None:
        """Measure a process and its child processes."""
        started_s = time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{title} failed")
        self.samples[title].append(
            Sample(
                wall_s=time.monotonic() - started_s,
                cpu_s=usage.ru_utime + usage.ru_stime,
                peak_mib=usage.ru_maxrss / 1024,
            )
        )

    def measure_steps(self) -> None:
        """Measure the steps of a cold ``build-all``, from its progress lines."""
        command = self.command("build-all", "--no-check", "--out", self.new_folder())
        started_s = time.monotonic()
        lines, first_job_s, steps_s = [], None, {}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr or ():
                lines.append(line)
                if first_job_s is None and "] $ " in line:
                    first_job_s = time.monotonic() - started_s
                if done := re.fullmatch(rf"   done: \[{SLOWER}\] (.+) \(([\d.]+) s\)\n", line):
                    steps_s[done[1]] = float(done[2])
        wall_s = time.monotonic() - started_s
        if process.returncode or first_job_s is None or not steps_s:
            sys.exit(f"{''.join(lines)}build-all failed, or its progress lines have changed")
        parts = {"the program, the container, the imports of the server": first_job_s, **steps_s}
        parts["everything else: config edit, provenance, delivery"] = wall_s - sum(parts.values())
        for name, seconds in parts.items():
            self.steps_s[name].append(seconds)

    def measure_by_hand(self, session: Session) -> None:
        """Measure the four commands; the time for editing the config by hand is not counted."""
        total = []
        for variant in VARIANTS:
            plan, place = self.plan(variant), self.place(variant)
            commands = place.commands(plan, session)
            session.run_job(Job(argv=commands.config))
            # `env` makes the server start a new process instead of a fork with TensorFlow already imported.
            results = [session.run_job(Job(argv=("env", *argv))) for argv in (commands.export, commands.toco)]
            self.samples[f"{variant}, by hand"].append(_sum(results))
            total += results
            self.digests[variant].add(
                normalize_keys(place.folder(plan) / plan.products.raw, None).digests.sha256
            )
        self.samples["both, by hand"].append(_sum(total))

    def measure_in_a_row(self, session: Session) -> None:
        """Measure conversions in an open session, individually and in total."""
        started_s = time.monotonic()
        everything = []
        for number in range(JOBS_IN_A_ROW):
            variant = VARIANTS[number % 2]
            plan, place = self.plan(variant), self.place(variant)
            counting = CountingSession(session)
            job_started_s = time.monotonic()
            with contextlib.redirect_stderr(io.StringIO()):
                normalized = convert(counting, plan, place).normalized
            wall_s = time.monotonic() - job_started_s
            self.samples[f"{variant}, warm"].append(replace(_sum(counting.results), wall_s=wall_s))
            everything += counting.results
            self.digests[variant].add(normalized.digests.sha256)
        wall_s = time.monotonic() - started_s
        self.samples["eight in a row"].append(replace(_sum(everything), wall_s=wall_s))

    def profile(self, session: Session, variant: str) -> dict[str, dict[str, float]]:
        """Return the CPU seconds of each phase of an export, without and with the speed-ups."""
        code = (ROOT / "bench/export_phases.py").read_text("utf-8")
        profiles = {}
        for title, names in (("without", "none"), ("with", ",".join(SPEEDUPS))):
            commands = self.place(variant).commands(self.plan(variant), session)
            session.run_job(Job(argv=commands.config))
            argv = ("python", "-c", code, str(session.toolchain_dir), names, *commands.export[1:])
            result = session.run_job(Job(argv=argv))
            if result.exit_code:
                sys.exit("\n".join(result.stderr))
            profiles[title] = json.loads(result.stdout[-1])
        return profiles

    @contextlib.contextmanager
    def measuring(self, title: str) -> Iterator[None]:
        """Measure time, CPU and memory of the whole machine; a container is not a child process."""
        stop, used_mib = threading.Event(), [_anonymous_mib()]

        def watch() -> None:
            while not stop.wait(SAMPLE_S):
                used_mib.append(_anonymous_mib())

        watcher = threading.Thread(target=watch)
        watcher.start()
        cpu_s, started_s = _busy_s(), time.monotonic()
        try:
            yield
        finally:
            wall_s = time.monotonic() - started_s
            stop.set()
            watcher.join()
        peak_mib = max(used_mib) - used_mib[0]
        sample = Sample(wall_s=wall_s, cpu_s=_busy_s() - cpu_s, peak_mib=peak_mib)
        self.samples[title].append(sample)

    def program(self, *arguments: str | Path, cache: bool = False) -> None:
        """Run ``python -m runner`` and record the digests of its products."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=environment(cache=cache),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stderr)
        if arguments[0] in CONVERSIONS:
            for made in json.loads(done.stdout):
                self.digests[made["variant"]].add(made["sha256"])

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of a run, as a user types it."""
        more = ["--json", "--model-dir", self.model_dir] if arguments[0] in CONVERSIONS else []
        return [sys.executable, "-m", "runner", *map(str, (*arguments, *more))]

    def check_digests(self) -> None:
        """Exit with an error if the measured runs gave different files."""
        for variant, digests in self.digests.items():
            if len(digests) != 1:
                sys.exit(f"{variant}: the runs gave different files: {digests}")

    def plan(self, variant: str) -> ConversionPlan:
        """Return the plan of a conversion; it is made once and is not measured."""
        if variant not in self.plans:
            self.plans[variant] = self._new_plan(variant)
        return self.plans[variant]

    def _new_plan(self, variant: str) -> ConversionPlan:
        request = PlanRequest(
            recipe=self.recipe,
            variants=(variant,),
            model_dir=self.model_dir,
            out_dir=self.scratch / "out",
            speedups=SPEEDUPS,
            toolchains=(),
        )
        facts = stated_facts(self.recipe.variants[variant])
        assert facts is not None
        (conversion,) = make_plan(request, sha256_of=sha256_of, read_facts=lambda *_: facts).conversions
        return conversion

    def place(self, variant: str) -> Workplace:
        """Return a new workplace for the plan of a variant."""
        place = Workplace(model_dir=self.model_dir, out_dir=self.new_folder(), options=self.options)
        place.folder(self.plan(variant)).mkdir()
        return place

    def new_folder(self) -> Path:
        """Make a folder that is mounted in the container."""
        return Path(tempfile.mkdtemp(dir=self.scratch))


def environment(*, cache: bool = False) -> dict[str, str]:
    """Return the environment variables of a user, with or without a cache."""
    variables = {**os.environ, **({} if cache else {"RUNNER_CACHE_MIB": "0"})}
    # Python must be able to write bytecode, as for a user, because bytecode makes the next start faster.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


class CountingSession:
    """A session that records the results of its jobs."""

    def __init__(self, session: Session) -> None:
        self.toolchain_dir = session.toolchain_dir
        self.results: list[JobResult] = []
        self._session = session

    def run_job(self, job: Job, on_line: Stream | None = None) -> JobResult:
        """Run a job."""
        self.results.append(self._session.run_job(job, on_line))
        return self.results[-1]

    def wait_until_ready(self) -> None:
        """Wait for the session."""
        self._session.wait_until_ready()

    def run(self, *argv: str) -> JobResult:
        """Run a command."""
        return self.run_job(Job(argv=argv))

    def stop(self) -> None:
        """Stop the session."""
        self._session.stop()


def _sum(results: list[JobResult]) -> Sample:
    for result in results:
        if result.exit_code:
            sys.exit("\n".join(result.stderr))
    return Sample(
        wall_s=sum(result.wall_s for result in results),
        cpu_s=sum(result.cpu_s for result in results),
        peak_mib=max(result.peak_memory_mib for result in results),
    )


def _busy_s() -> float:
    """Return the busy seconds of all processors of this machine since boot."""
    user, nice, system, _, _, irq, softirq, *_ = (
        int(word) for word in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def busy_share() -> float:
    """Return the share of CPU time that other processes use; the load average would include our own."""
    before_s = _busy_s()
    time.sleep(LISTEN_S)
    return (_busy_s() - before_s) / LISTEN_S / (os.cpu_count() or 1)


def _anonymous_mib() -> float:
    """Return the anonymous memory of all processes; unlike the page cache, it is freed when they end."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("AnonPages:"):
            return int(line.split()[1]) / 1024
    sys.exit("/proc/meminfo has no line AnonPages")


if __name__ == "__main__":
    main()
