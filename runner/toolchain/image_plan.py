"""The inputs of the toolchain image: files that are hashed into its tag and sent to the daemon.

Equal inputs give an equal tag, so an image is built only once. Network settings (proxy, package index, CA
bundle) are passed to the build but not hashed, because all downloads are pinned.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from runner.errors import UsageError
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.toolchain.catalog import TOCO_ONLY, load_toolchain, toco_only_files
from runner.toolchain.files import CA_BUNDLE, LOCAL_MODELS, toolchain_files
from runner.toolchain.models_source import candidate_sources, choose_source, proven_tree
from runner.toolchain.pins import PROJECT_ROOT, PYTHON_PIN_FILE, load_base_image, load_models_pin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.toolchain.catalog import ToolchainSpec
    from runner.toolchain.models_source import ModelsSource, SourceKind

IMAGE_NAME: Final = "mobiledet-runner"

_PASSED_ON: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY", "PIP_INDEX_URL")


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """The inputs of one toolchain image; ``source`` and ``models_commit`` are None without a models tree."""

    spec: ToolchainSpec
    base_image: str
    source: SourceKind | None
    local_source: Path | None = None
    models_commit: str | None
    digest: str
    """sha256 over all inputs: base image, source of the models tree, and all files of the build context."""
    tag: str
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    ca_bundle: Path | None = None
    root: Path = PROJECT_ROOT


def plan_image(
    *,
    toolchain: str = DEFAULT_TOOLCHAIN,
    base_image: str | None = None,
    models: str = "auto",
    models_commit: str | None = None,
    ca_bundle: Path | None = None,
    root: Path = PROJECT_ROOT,
) -> ImagePlan:
    """Plan the image for one source of the models tree; ``auto`` checks whether GitHub is reachable.

    Raises:
        ConfigError: a pin is missing or malformed.
        UsageError: as `candidate_sources`; or there is no such CA bundle.
    """
    spec = load_toolchain(toolchain, root)
    if not spec.has_models_tree:
        return _plan(spec, None, base_image, ca_bundle, root)
    source = choose_source(models, load_models_pin(root), commit=models_commit)
    return _plan(spec, source, base_image, ca_bundle, root)


def candidate_plans(
    *,
    toolchain: str = DEFAULT_TOOLCHAIN,
    base_image: str | None = None,
    models: str = "auto",
    models_commit: str | None = None,
    ca_bundle: Path | None = None,
    root: Path = PROJECT_ROOT,
) -> tuple[ImagePlan, ...]:
    """Plan the image for every source that ``models`` allows, preferred source first; uses no network.

    An existing image of any of these plans can be used, even if its source is not reachable now.

    Raises:
        ConfigError: a pin is missing or malformed.
        UsageError: as `candidate_sources`; or there is no such CA bundle.
    """
    spec = load_toolchain(toolchain, root)
    pin = load_models_pin(root)
    sources = candidate_sources(models, pin, commit=models_commit) if spec.has_models_tree else (None,)
    return tuple(_plan(spec, source, base_image, ca_bundle, root) for source in sources)


def _plan(
    spec: ToolchainSpec,
    source: ModelsSource | None,
    base_image: str | None,
    ca_bundle: Path | None,
    root: Path,
) -> ImagePlan:
    if ca_bundle is not None and not ca_bundle.is_file():
        raise UsageError(f"there is no CA bundle {ca_bundle}", tip="give the path of a PEM file")
    base_image = base_image or spec.base_image or load_base_image(root)
    commit = None if source is None else source.commit(load_models_pin(root))
    kind = None if source is None else source.kind
    digest = _digest(spec, base_image, kind, root)
    own = {"TENSORFLOW": spec.tensorflow} if kind is None else {"MODELS_SOURCE": kind}
    return ImagePlan(
        spec=spec,
        base_image=base_image,
        source=kind,
        local_source=None if source is None else source.path,
        models_commit=commit,
        digest=digest,
        tag=f"{IMAGE_NAME}:{digest[:16]}",
        build_args={"BASE_IMAGE": base_image, **own, **_network_settings()},
        labels={
            f"{IMAGE_NAME}.digest": digest,
            **({f"{IMAGE_NAME}.toolchain": spec.name} if commit is None else {}),
            **({} if commit is None else {f"{IMAGE_NAME}.models-commit": commit}),
        },
        ca_bundle=ca_bundle,
        root=root,
    )


def _network_settings() -> dict[str, str]:
    """Return the proxy and package index variables of the environment, in upper and lower case."""
    names = [*_PASSED_ON, *(name.lower() for name in _PASSED_ON if name.endswith("_PROXY"))]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def context_files(root: Path) -> tuple[PurePosixPath, ...]:
    """Return the files to hash and send, sorted: those that ``.dockerignore`` does not exclude.

    The pin of CPython is omitted, because the image has its own CPython.
    """
    return tuple(file for file in toolchain_files(root) if str(file) != PYTHON_PIN_FILE)


def _context(spec: ToolchainSpec, root: Path) -> dict[str, Path]:
    """Return the files to hash and send, keyed by their name in the build context, sorted."""
    if spec.has_models_tree:
        return {str(name): root / name for name in context_files(root)}
    files = {path.relative_to(root).as_posix(): path for path in toco_only_files(spec, root)}
    files["requirements.lock"] = files.pop(spec.lock)
    files["Dockerfile"] = files.pop(f"{TOCO_ONLY}/Dockerfile")
    return dict(sorted(files.items()))


def _digest(spec: ToolchainSpec, base_image: str, source: str | None, root: Path) -> str:
    files = [
        (name, _mode(path), hashlib.sha256(path.read_bytes()).hexdigest())
        for name, path in _context(spec, root).items()
    ]
    inputs = {"base_image": base_image, "models_source": source, "files": files}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def write_context(plan: ImagePlan, fileobj: IO[bytes]) -> None:
    """Write the build context as a tar; equal inputs give equal bytes.

    Raises:
        IntegrityError: the local tree is not the pinned one; the message names the file.
    """
    files = _context(plan.spec, plan.root)
    names = [PurePosixPath(name) for name in files]
    with tarfile.open(fileobj=fileobj, mode="w") as archive:
        # Folders without their own entry would be world-writable in the image.
        for folder in sorted({folder for name in names for folder in name.parents if folder.name}):
            _add(archive, folder.as_posix(), b"", 0o755, tarfile.DIRTYPE)
        for name, path in files.items():
            _add(archive, name, path.read_bytes(), _mode(path))
        if plan.local_source is not None:
            _add(archive, LOCAL_MODELS, _packed_tree(plan.local_source, plan.root))
        if plan.ca_bundle is not None:
            _add(archive, CA_BUNDLE, plan.ca_bundle.read_bytes())


def _packed_tree(source: Path, root: Path) -> bytes:
    packed = io.BytesIO()
    with proven_tree(source, root) as tree, tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(path for path in (tree / "research").rglob("*") if path.is_file()):
            _add(archive, path.relative_to(tree).as_posix(), path.read_bytes())
    return packed.getvalue()


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _add(
    archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644, kind: bytes = tarfile.REGTYPE
) -> None:
    """Add a file or folder without owner and time, so that equal content gives equal bytes."""
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = len(content)
    member.mode = mode
    archive.addfile(member, io.BytesIO(content))
