"""The class `Runner`: the commands as methods that return their results instead of printing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.engines.base import DEFAULT_MEMORY_MIB, DEFAULT_TIMEOUT_S, Folders
from runner.engines.choose import AUTO, EngineOptions, check_name, choose_engine
from runner.recipes.recipe import DEFAULT_RECIPE, load_recipe
from runner.recipes.settings import USES, check_bounds
from runner.scripts.provider import ToolchainProvider

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from types import TracebackType

    from runner.deliver.run import Result
    from runner.engines.persistent import PersistentEngine
    from runner.evidence.check.run import CheckReport
    from runner.evidence.provenance.verify import ProvenanceReport
    from runner.proof.match import MatchReport
    from runner.proof.rebuild import Proof
    from runner.recipes.recipe import Recipe
    from runner.recipes.settings import Settings
    from runner.scripts.run import ScriptOptions
    from runner.tflite.diff import ModelDiff
    from runner.tflite.rewrite import Normalized
    from runner.tflite.summary import Summary
    from runner.tflite.verify import Verification

    StrPath = str | os.PathLike[str]


class Runner:
    """Convert, verify and check detection models.

    The first call that needs the toolchain starts it; the end of the ``with`` block, or `close`, stops it.
    Nothing is printed: progress and warnings are records of the logger ``runner``. The errors are those in
    `runner.errors`. Use each Runner in one thread only.
    """

    def __init__(
        self,
        *,
        engine: str = AUTO,
        base_image: str | None = None,
        models: str = AUTO,
        ca_bundle: StrPath | None = None,
        python: str | None = None,
        python_download: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        memory_mib: int = DEFAULT_MEMORY_MIB,
        read_only: Iterable[StrPath] = (),
        writable: Iterable[StrPath] = (),
    ) -> None:
        """Choose the toolchain.

        The parameters mean the same as the command-line options with these names. Environment variables are
        not read. ``read_only`` and ``writable`` are folders to mount into the container that the calls share.
        A call that uses other folders starts its own container. The local engine needs no mounts and always
        uses one session.

        Raises:
            UsageError: there is no such engine.
        """
        check_name(engine)
        self._engine_name = engine
        self._engine_options = EngineOptions(
            models=models,
            ca_bundle=_optional_path(ca_bundle),
            base_image=base_image,
            memory_mib=memory_mib,
            python=python,
            python_download=python_download,
        )
        self._timeout_s = timeout_s
        self._memory_mib = memory_mib
        self._folders = Folders(
            read_only=tuple(Path(folder).resolve() for folder in read_only),
            writable=tuple(Path(folder).resolve() for folder in writable),
        )
        self._kept: PersistentEngine | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the toolchain if it is running; a later call starts it again."""
        if self._kept is not None:
            self._kept.close()

    def settings(self, variant: str, *, recipe: StrPath = DEFAULT_RECIPE) -> Settings:
        """Return the settings that the published file of a variant was made with.

        Raises:
            ConfigError: there is no such recipe, or it is invalid.
            UsageError: the recipe has no such variant.
        """
        return _recipe(recipe).variant(variant).settings

    def convert(
        self,
        *,
        model_dir: StrPath | None = None,
        out: StrPath,
        recipe: StrPath = DEFAULT_RECIPE,
        variants: Iterable[str] = (),
        settings: Settings | None = None,
        toolchain: str | None = None,
        checkpoint_prefix: str | None = None,
        force: bool = False,
        overwrite: bool = False,
        with_paths: bool = False,
    ) -> tuple[Result, ...]:
        """Convert checkpoints to ``.tflite`` files in ``out``, or copy the files from the cache.

        If ``model_dir`` is None, the published checkpoints are downloaded. ``recipe`` is the name of a
        shipped recipe, or a folder. The default of ``variants`` is all variants of the recipe. The default of
        ``settings`` is the recipe's settings of each variant. ``toolchain`` is the name of the toolchain that
        runs TOCO; the export always runs in the default toolchain.

        Raises:
            UsageError: an argument is invalid, or ``out`` contains a file of the same name that this program
                did not make.
            ConfigError, IntegrityError: a checkpoint is missing, does not match its variant, or is damaged.
            IdentityError: a result does not compute what its frozen graph computes.
            RunnerError: the engine, a script or a download failed.
        """
        from runner.deliver.request import Request, handle_request

        loaded = _recipe(recipe)
        if checkpoint_prefix is not None:
            loaded = loaded.with_variants(checkpoint_prefix=checkpoint_prefix)
        if toolchain is not None:
            loaded = loaded.with_variants(toolchain=toolchain)
        names = (variants,) if isinstance(variants, str) else tuple(variants) or tuple(loaded.variants)
        request = Request(
            recipe=loaded,
            variants=tuple(loaded.variant(name).name for name in names),
            model_dir=_optional_path(model_dir),
            out_dir=Path(out),
            choices={} if settings is None else _choices(settings, loaded, names),
            models=self._engine_options.models,
            with_paths=with_paths,
            force=force,
            overwrite=overwrite,
        )
        return handle_request(request, self._provider)

    def verify(
        self,
        file: StrPath,
        *,
        recipe: StrPath = DEFAULT_RECIPE,
        against: StrPath | None = None,
        variant: str | None = None,
    ) -> Verification:
        """Compare a ``.tflite`` with the published file, or with ``against``; needs no toolchain.

        Raises:
            UsageError: a file cannot be read, or there is no such variant.
            IntegrityError: a file is not a ``.tflite``, or is damaged.
        """
        from runner.tflite.verify import verify_file

        return verify_file(Path(file), _recipe(recipe), against=_optional_path(against), variant_name=variant)

    def verify_provenance(
        self, provenance: StrPath, *, file: StrPath | None = None, model_dir: StrPath | None = None
    ) -> ProvenanceReport:
        """Compare the digests in a ``provenance.json`` with the available files; needs no toolchain.

        Raises:
            UsageError: the provenance or its final file is missing.
            IntegrityError: this program did not write the provenance.
        """
        from runner.evidence.provenance.verify import check_provenance

        return check_provenance(
            Path(provenance), file=_optional_path(file), model_dir=_optional_path(model_dir)
        )

    def diff(self, left: StrPath, right: StrPath) -> ModelDiff:
        """Compare two ``.tflite`` files, or two graphs, by content. Only graphs need the toolchain.

        Raises:
            UsageError: a file cannot be read, or the files are of different kinds.
            IntegrityError: a file is damaged.
            RunnerError: the files are graphs, and the engine or the step that compares them failed.
        """
        from runner.graph.diff import diff_files

        return diff_files(Path(left), Path(right), self._provider)

    def inspect(self, file: StrPath) -> Summary:
        """Describe a ``.tflite`` file; needs no toolchain.

        Raises:
            UsageError: the file cannot be read.
            IntegrityError: the file is not a ``.tflite``, or is damaged.
        """
        from runner.tflite.model import read_model_file
        from runner.tflite.summary import summarise

        return summarise(read_model_file(Path(file)))

    def normalize(self, source: StrPath, target: StrPath, *, overwrite: bool = False) -> Normalized:
        """Copy a ``.tflite`` and put the keys of its post-processing options in the fixed order.

        Needs no toolchain.

        Raises:
            UsageError: the source cannot be read, or the target cannot be written or already exists.
            IntegrityError: the source is not a ``.tflite`` that TOCO wrote.
        """
        from runner.tflite.rewrite import normalize

        return normalize(Path(source), Path(target), overwrite=overwrite)

    def check(
        self,
        path: StrPath,
        *,
        recipe: StrPath = DEFAULT_RECIPE,
        graph: StrPath | None = None,
        variant: str | None = None,
        images: Iterable[StrPath] = (),
        seed: int = 0,
        count: int = 2,
    ) -> dict[Path, CheckReport]:
        """Check that each ``.tflite`` in ``path`` computes what its graph computes; return a report per file.

        ``path`` is a file, the folder of a conversion, or an output directory. Files that the command
        `convert` made are identified by their provenance.

        Raises:
            UsageError: there is no such file, variant, graph or image.
            IntegrityError: the file is not a ``.tflite``, or is damaged.
            RunnerError: the engine or a step failed.
        """
        from runner.evidence.check.files import Inputs, check_pairs, find_pairs
        from runner.evidence.provenance.own_model import recorded_own_recipe

        own = recorded_own_recipe(Path(path))
        pairs = find_pairs(
            Path(path), own or _recipe(recipe), graph=_optional_path(graph), variant_name=variant
        )
        inputs = Inputs(images=tuple(map(Path, images)), seed=seed, count=count)
        reports = check_pairs(self._engine(), pairs, inputs, self._script_options())
        return {pair.tflite: report for pair, report in zip(pairs, reports, strict=True)}

    def match(self, file: StrPath, *, graph: StrPath, build_missing: bool = False) -> MatchReport:
        """Find out which TOCO and which command line produce ``file`` from its frozen graph.

        Toolchains that are not built yet are skipped, unless ``build_missing`` is true.

        Raises:
            UsageError: a file cannot be read, or the graph lacks inputs or outputs of the file.
            IntegrityError: the file is not a ``.tflite``, or is damaged.
            RunnerError: the engine failed, or TOCO failed in every toolchain.
        """
        from runner.proof.match import MatchRequest, match

        request = MatchRequest(
            file=Path(file), graph=Path(graph), options=self._script_options(), build_missing=build_missing
        )
        return match(self._engine(), request)

    def prove(self, *, recipe: StrPath = DEFAULT_RECIPE) -> Proof:
        """Rebuild the published inference graph and compare its digests; needs no weights.

        Raises:
            ConfigError: the recipe has no published graph.
            RunnerError: the engine or a step failed.
        """
        from runner.proof.rebuild import prove

        return prove(self._engine(), _recipe(recipe), self._script_options())

    @property
    def _provider(self) -> ToolchainProvider:
        return ToolchainProvider(engine=self._engine, options=self._script_options)

    def _engine(self) -> PersistentEngine:
        from runner.engines.persistent import PersistentEngine

        if self._kept is None:
            self._kept = PersistentEngine(
                choose_engine(self._engine_name, self._engine_options), self._folders
            )
        return self._kept

    def _script_options(self) -> ScriptOptions:
        from runner.scripts.logs import new_log_dir
        from runner.scripts.run import ScriptOptions

        return ScriptOptions(log_dir=new_log_dir(), timeout_s=self._timeout_s, memory_mib=self._memory_mib)


def _recipe(recipe: StrPath) -> Recipe:
    return load_recipe(recipe if isinstance(recipe, str) else Path(recipe))


def _choices(settings: Settings, recipe: Recipe, names: tuple[str, ...]) -> dict[str, object]:
    """Return the settings that differ from the recipe's settings of at least one of the variants.

    Raises:
        UsageError: a number is out of range.
    """
    check_bounds(settings)
    given = {name: getattr(settings, name) for name in USES}
    stated = [recipe.variants[name].settings for name in names]
    return {name: value for name, value in given.items() if any(getattr(it, name) != value for it in stated)}


def _optional_path(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)
