"""Build the environment of the local engine with the steps of the Dockerfile, on an installed CPython 3.7.

The build uses the same lock files, smoke test and script for the models tree (the source of
tensorflow/models) as the Dockerfile. All downloads are pinned by hash, so the user's own package index,
mirror, proxy and certificates can be used.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr, Final

from runner import console
from runner.engines.exit_codes import EXIT_MEANINGS, code_of
from runner.engines.local.pip_settings import uv_settings
from runner.errors import BuildError, DiskFullError, IntegrityError
from runner.host import disk
from runner.host.cache_dir import CACHE_DIR_VARIABLE
from runner.host.interrupts import deferred_interrupts
from runner.toolchain.catalog import TOCO_ONLY
from runner.toolchain.pins import MODELS_PIN_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.engines.local.plan import EnvironmentPlan
    from runner.toolchain.catalog import ToolchainSpec
    from runner.toolchain.models_source import ModelsSource

LAST_LINES: Final = 25
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IMAGE_MODELS_DIR: Final = "/opt/models"
"""The path of the models tree in the image; ``docker/models-research.pth`` contains this path."""

ONLY_WHEELS: Final = ("--only-binary", ":all:")
BUILD_HERE: Final = ("--no-build-isolation", "--no-cache-dir")
"""pip's options for an sdist. They disable pip's cache: pip does not check the hash of a cached wheel."""

NETWORK_VARIABLES: Final = (
    *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST"),
    *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES"),
    *("PIP_CACHE_DIR", "PIP_CONFIG_FILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
)
"""The user's network settings; the build inherits no other environment variables."""

_WRONG_HASH: Final = ("DO NOT MATCH THE HASHES", "Hash mismatch")
"""Messages of pip and uv about a file with a wrong hash."""


def build_environment(plan: EnvironmentPlan, folder: Path) -> None:
    """Build a complete environment in an empty folder. Its files contain the path, so it cannot be moved.

    Raises:
        BuildError: a step failed; the error contains its last lines.
        IntegrityError: a wheel or a file of the models tree is not the pinned one.
    """
    docker_dir, source = plan.root / "docker", plan.source
    # The scratch folder is inside the environment's folder, so that both are removed after a killed build.
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as scratch:
        environment = _build_variables(folder, Path(scratch), plan.ca_bundle)
        with console.step(f"install the locked wheels on CPython {plan.interpreter.version}"):
            _make_venv(plan.interpreter.path, folder, environment)
            _install_wheels(folder, plan.root / plan.spec.lock, environment)
            if source is not None:
                # gast has no wheel: it is built with the setuptools and wheel from the lock file.
                _install(folder, docker_dir / "requirements-sdist.lock", environment, *BUILD_HERE)
            run_build_command(folder / "bin/python", "-m", "pip", "check", environment=environment)
        if source is not None:
            with console.step(f"get tensorflow/models {str(plan.models_commit)[:7]} from {source.kind}"):
                _get_models(plan, source, folder, Path(scratch), environment)
        with console.step("smoke test"):
            variables = toolchain_variables(plan.spec, folder, plan.root, Path(scratch))
            run_build_command(*_smoke_test(plan, folder), environment=variables)


def _smoke_test(plan: EnvironmentPlan, folder: Path) -> tuple[str | Path, ...]:
    if plan.spec.has_models_tree:
        return (folder / "bin/python", plan.root / "docker/smoke_test.py")
    return ("bash", plan.root / TOCO_ONLY / "smoke-test.sh", plan.spec.tensorflow)


def toolchain_variables(spec: ToolchainSpec, folder: Path, root: Path, scratch: Path) -> dict[str, str]:
    """Return the complete set of environment variables of the toolchain; none are inherited from the user.

    HOME and TMPDIR are the scratch folder, because Keras uses a configuration file in the home directory.
    """
    toco_only = () if spec.has_models_tree else (root / TOCO_ONLY,)
    return {
        "PATH": ":".join(map(str, (*toco_only, root / "docker/bin", folder / "bin", SYSTEM_PATH))),
        "BASH_ENV": str(root / "docker/bin/_published_paths.sh"),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }


def _build_variables(folder: Path, scratch: Path, ca_bundle: Path | None) -> dict[str, str]:
    variables = {name: os.environ[name] for name in NETWORK_VARIABLES if os.environ.get(name)}
    if ca_bundle is not None:
        variables |= {"PIP_CERT": str(ca_bundle), "SSL_CERT_FILE": str(ca_bundle)}
    return variables | {
        "PATH": f"{folder / 'bin'}:{SYSTEM_PATH}",
        "HOME": str(Path.home()),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PIP_USER": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
    }


def _make_venv(interpreter: Path, folder: Path, environment: Mapping[str, str], *how: str) -> None:
    run_build_command(interpreter, "-I", "-m", "venv", *how, folder, environment=environment)


def _install_wheels(folder: Path, lock: Path, environment: Mapping[str, str]) -> None:
    """Install the wheels with uv, which is several times faster than pip and checks the same hashes."""
    from uv import find_uv_bin

    python = folder / "bin/python"
    run_build_command(
        *(
            find_uv_bin(),
            "pip",
            "install",
            "--python",
            python,
            "--no-config",
            "--no-deps",
            "--require-hashes",
        ),
        # Any index may provide a wheel, because its hash is checked.
        *("--index-strategy", "unsafe-best-match", *ONLY_WHEELS, "-r", lock),
        environment={**environment, **uv_settings(python, environment)},
    )


def _install(folder: Path, lock: Path, environment: Mapping[str, str], *how: str | Path) -> None:
    pip_install = (folder / "bin/python", "-m", "pip", "install", "--no-deps", "--require-hashes")
    run_build_command(*pip_install, *how, "-r", lock, environment=environment)


def _site_packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python3.*/site-packages")
    return found


def _get_models(
    plan: EnvironmentPlan,
    source: ModelsSource,
    folder: Path,
    scratch: Path,
    environment: Mapping[str, str],
) -> None:
    """Get the verified models tree with compiled protos, add it to sys.path, and byte-compile it."""
    models_dir = folder / "models"
    options: list[str | Path] = ["--source", source.kind]
    if source.path is not None:
        options += ["--path", source.path]
    if source.kind != "pypi":  # the sdist from PyPI already contains compiled protos
        protoc = scratch / "protoc"
        _make_venv(plan.interpreter.path, protoc, environment, "--without-pip")
        into = (*ONLY_WHEELS, "--target", _site_packages(protoc))
        _install(folder, plan.root / "docker/requirements-protoc.lock", environment, *into)
        options += ["--protoc-python", protoc / "bin/python"]
    options += ["--pin", plan.root / MODELS_PIN_FILE, "--output", models_dir]
    run_build_command(
        folder / "bin/python", plan.root / "docker/models_research.py", *options, environment=environment
    )

    paths = (plan.root / "docker/models-research.pth").read_text(encoding="utf-8")
    (_site_packages(folder) / "models-research.pth").write_text(
        paths.replace(IMAGE_MODELS_DIR, str(models_dir)), encoding="utf-8"
    )
    compileall = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    run_build_command(folder / "bin/python", *compileall, models_dir, environment=environment)


# --- one command of the build -----------------------------------------------------------------------------


def run_build_command(*command: str | Path, environment: Mapping[str, str]) -> None:
    """Run a command, print its output live, and kill its process group if this program is interrupted.

    Raises:
        BuildError: the command failed; the error contains its last lines.
        DiskFullError: the command failed because a disk is full.
        IntegrityError: the command failed because a file is not the pinned one.
    """
    argv = [str(word) for word in command]
    last_lines: deque[str] = deque(maxlen=LAST_LINES)
    with (
        deferred_interrupts() as release,
        subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        try:
            release()
            for line in process.stdout or ():
                last_lines.append(line.rstrip())
                console.note(f"   | {line.rstrip()}")
            exit_code = process.wait()
        except BaseException:
            kill_group(process)
            raise
    if exit_code != 0:
        _raise_build_error(argv, code_of(exit_code), tuple(last_lines))


def kill_group(process: subprocess.Popen[AnyStr]) -> None:
    """Kill a process that leads its own session, together with its process group."""
    if process.returncode is None:  # if it has ended, its pid may already be reused
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _raise_build_error(argv: list[str], exit_code: int, last_lines: tuple[str, ...]) -> None:
    """Raise the error for a failed command; a wrong hash and a full disk have their own error types."""
    said = "\n".join(last_lines)
    reason = next((line for line in reversed(last_lines) if "error" in line.lower()), "see its last lines")
    if exit_code == IntegrityError.exit_code or any(words in said for words in _WRONG_HASH):
        raise IntegrityError(
            f"the environment was not built, because one of its inputs is not the pinned one: {reason}",
            last_lines=last_lines,
        )
    reason = EXIT_MEANINGS.get(exit_code, reason)
    message = f"the environment could not be built: {shlex.join(argv)} ended with code {exit_code}: {reason}"
    if disk.is_reported(said):
        tip = f"free some space: an environment needs 2 GB; {CACHE_DIR_VARIABLE} sets where it is stored"
        raise DiskFullError(message, tip=tip, last_lines=last_lines)
    tip = "check with `doctor` that PyPI is reachable; the build uses pip's settings and proxies"
    raise BuildError(message, tip=tip, last_lines=last_lines)
