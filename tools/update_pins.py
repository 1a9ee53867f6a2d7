"""Regenerate the lock files from their sources; `make update-pins` runs this in .venv.

Usage: update_pins.py [LOCK ...]        default: all lock files; example: docker/requirements.lock

The newest compatible versions are used, for CPython 3.7 in docker/ and toolchains/, and for the host's Python
versions in the top folder. The commits of tensorflow/models and the base image are not updated: they are
chosen by hand.
Commit each changed pin separately, after `make test`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ("--python-version=3.7", "--python-platform=x86_64-unknown-linux-gnu")
HOST = ("--universal", "--python-version=3.10", "--group=dev")

# The source and the options of each lock file.
LOCKS = {
    "requirements.lock": ("pyproject.toml", *HOST),
    # gast has no wheel; it has a separate lock file, which is installed after this one.
    "docker/requirements.lock": ("docker/requirements.in", *TOOLCHAIN, "--no-emit-package=gast"),
    "docker/requirements-sdist.lock": ("docker/requirements-sdist.in", *TOOLCHAIN, "--no-deps"),
    "docker/requirements-protoc.lock": ("docker/requirements-protoc.in", *TOOLCHAIN),
    # The lock files of the other toolchains.
    **{
        str(source.with_suffix(".lock").relative_to(ROOT)): (str(source.relative_to(ROOT)), *TOOLCHAIN)
        for source in sorted(ROOT.glob("toolchains/*/requirements.in"))
    },
}


def main() -> None:
    """Regenerate the given lock files, or all of them."""
    names = sys.argv[1:] or list(LOCKS)
    unknown = [name for name in names if name not in LOCKS]
    if unknown:
        sys.exit(f"update_pins: unknown lock file {unknown[0]}; one of: {', '.join(LOCKS)}")
    for name in names:
        sys.stderr.write(f"-> {name}\n")
        subprocess.run(command_for(name), cwd=ROOT, check=True)


def command_for(lock: str) -> list[str]:
    """Return the command that generates a lock file."""
    source, *options = LOCKS[lock]
    uv = str(Path(sys.executable).with_name("uv"))
    fixed = ["--generate-hashes", "--no-emit-index-url", "--upgrade", "--quiet", "--custom-compile-command"]
    return [uv, "pip", "compile", source, *options, *fixed, "make update-pins", "--output-file", lock]


if __name__ == "__main__":
    main()
