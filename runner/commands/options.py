"""Options that several commands share: dataclasses whose fields become options of a command."""

from __future__ import annotations

import functools
import inspect
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeVar, get_args, get_type_hints

import typer

from runner.engines.base import DEFAULT_MEMORY_MIB, DEFAULT_TIMEOUT_S
from runner.errors import UsageError
from runner.recipes.recipe import DEFAULT_TOOLCHAIN
from runner.recipes.settings import USES, Settings, option_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.engines.base import Engine
    from runner.scripts.provider import ToolchainProvider
    from runner.scripts.run import ScriptOptions


def _named_path(text: str) -> Path:
    """Parse a path; refuse an empty one, which usually comes from an unset variable.

    Otherwise an empty path would mean the current folder.
    """
    if not text:
        raise typer.BadParameter("the path is empty; is a shell variable unset?")
    return Path(text)


OptionalPath = Path | None
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OutDir = Annotated[
    Path,
    typer.Option(
        "--out",
        envvar="TFLITE_MODEL_DIR",
        parser=_named_path,
        metavar="PATH",
        help="The output directory; it is created if it does not exist.",
    ),
]
DEFAULT_OUT: Final = Path("build")
Overwrite = Annotated[bool, typer.Option("--overwrite", "--force", help="Replace existing output files.")]
"""For commands without a cache: in these, --force has no other meaning and is a synonym of --overwrite."""
ModelDir = Annotated[
    OptionalPath,
    typer.Option(
        envvar="TF_MODEL_DIR",
        parser=_named_path,
        metavar="PATH",
        help="The folder of the checkpoints, with the layout of the zoo's archive: fp32/ and uint8/. It is "
        "only read.",
    ),
]
CaBundle = Annotated[
    OptionalPath,
    typer.Option(
        envvar="RUNNER_CA_BUNDLE",
        help="CA certificates to use when building the toolchain, if a proxy intercepts TLS.",
    ),
]


RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FOLDER",
        help="A recipe that `recipes list` names, or a folder with a recipe.toml. Default: MobileDet's.",
        show_default=False,
    ),
]


TocoToolchain = Annotated[
    str | None,
    typer.Option(
        "--toolchain",
        metavar="NAME",
        help="Use the TOCO of this toolchain, such as tf2.3 (see `doctor`). Default: the recipe's.",
        show_default=False,
    ),
]
IgnoreQuantization = Annotated[
    bool,
    typer.Option(
        "--ignore-quantization",
        help="If the config has no graph_rewriter: treat a quantization-aware checkpoint as float.",
    ),
]
DropUnknownFields = Annotated[
    bool,
    typer.Option(
        "--drop-unknown-fields",
        help="Remove config fields that the toolchain's detection API does not know, and report each.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ToolchainOptions:
    """Which toolchain to use, how to build it if it does not exist, and how scripts run in it."""

    engine: Annotated[
        str,
        typer.Option(
            envvar="RUNNER_ENGINE",
            help="docker, local (without isolation), or auto: the first one that can run here.",
        ),
    ] = "auto"
    base_image: Annotated[
        str | None,
        typer.Option(
            envvar="RUNNER_BASE_IMAGE",
            help="The image to build on, instead of the pinned python:3.7-slim.",
        ),
    ] = None
    models: Annotated[
        str,
        typer.Option(
            envvar="RUNNER_MODELS",
            help="Where tensorflow/models comes from: auto, github, pypi, or a folder or tarball of it.",
        ),
    ] = "auto"
    ca_bundle: CaBundle = None
    python: Annotated[
        str | None,
        typer.Option(
            envvar="RUNNER_PYTHON",
            help="The CPython 3.7 for the local engine. Default: an installed one, or else a downloaded one.",
        ),
    ] = None
    python_download: Annotated[
        bool,
        typer.Option(
            "--python-download/--no-python-download",
            help="Install CPython 3.7 if there is none. RUNNER_PYTHON_DOWNLOAD=never forbids it.",
        ),
    ] = True
    keep_container: Annotated[
        bool,
        typer.Option("--keep-container", help="Keep the container afterwards, for debugging."),
    ] = False
    timeout_s: Annotated[float, typer.Option(min=1.0, help="Time limit of one script, in seconds.")] = (
        DEFAULT_TIMEOUT_S
    )
    memory_mib: Annotated[int, typer.Option(min=64, help="Memory limit of one script, in MiB.")] = (
        DEFAULT_MEMORY_MIB
    )
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the output of the scripts while they run.")
    ] = False

    def provider(self) -> ToolchainProvider:
        """Return an object that creates the engine and the script options only when they are needed."""
        from runner.scripts.provider import ToolchainProvider

        return ToolchainProvider(engine=functools.partial(choose_engine, self), options=self.script_options)

    def script_options(self) -> ScriptOptions:
        """Return the options for running scripts, with a new folder for their logs."""
        from runner.scripts.logs import new_log_dir
        from runner.scripts.run import ScriptOptions

        return ScriptOptions(
            log_dir=new_log_dir(),
            timeout_s=self.timeout_s,
            memory_mib=self.memory_mib,
            is_verbose=self.verbose,
        )


@dataclass(frozen=True, kw_only=True)
class OneToolchainOptions(ToolchainOptions):
    """The options of a command that works with one toolchain: the default one, or another by name."""

    toolchain: Annotated[
        str, typer.Option(metavar="NAME", help="Which toolchain, such as tf2.3; `doctor` lists them.")
    ] = DEFAULT_TOOLCHAIN


def read_shape(text: str) -> tuple[int, ...]:
    """Parse a shape such as ``1,320,320,3``; TOCO itself checks the numbers.

    Raises:
        UsageError: the text is not a list of whole numbers.
    """
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise UsageError(
            f"--input-shape {text!r} is not a shape", tip="separate whole numbers by commas: 1,320,320,3"
        ) from None


def choose_engine(toolchain: ToolchainOptions) -> Engine:
    """Return the chosen engine, without starting it.

    Raises:
        UsageError: there is no engine of this name.
    """
    from runner.engines import choose

    names = (field.name for field in fields(choose.EngineOptions))
    options = choose.EngineOptions(**{name: getattr(toolchain, name) for name in names})
    engine = choose.choose_engine(toolchain.engine, options)
    if isinstance(toolchain, OneToolchainOptions) and toolchain.toolchain != DEFAULT_TOOLCHAIN:
        return engine.with_toolchain(toolchain.toolchain)
    return engine


_Command = TypeVar("_Command", bound="Callable[..., Any]")


class Choices(dict[str, Any]):
    """The settings that the user chose, by name; the recipe determines all other settings."""

    left_out: ClassVar[frozenset[str]] = frozenset()

    @staticmethod
    def default_of(name: str) -> str:
        """Return the default of a setting, as text for ``--help``."""
        default = getattr(Settings(), name)
        return ("on" if default else "off") if isinstance(default, bool) else "the recipe's"


class ExportChoices(Choices):
    """The settings that the user chose for a single export; the rest have the defaults of `Settings`."""

    left_out = frozenset({"check", "export"})

    @staticmethod
    def default_of(name: str) -> str:
        """Return the default of a setting, as text for ``--help``."""
        default = getattr(Settings(), name)
        if default is None:
            return "the config's"
        return (
            str(default.value)
            if isinstance(default, Enum)
            else Choices.default_of(name).replace("the recipe's", str(default))
        )


class OwnChoices(Choices):
    """The settings that the user chose for their own model; the rest have the values of `OWN_SETTINGS`."""

    @staticmethod
    def default_of(name: str) -> str:
        """Return the default of a setting, as text for ``--help``."""
        return "fast" if name == "nms" else ExportChoices.default_of(name)


def takes_options(command: _Command) -> _Command:
    """Expand the option groups among a command's parameters into single options.

    Each field of a dataclass parameter, and each setting of a `Choices` parameter, becomes an option.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: it.annotation for name, it in signature.parameters.items() if _is_group(it.annotation)
    }
    own = [it for name, it in signature.parameters.items() if name not in groups]
    options = {name: _options_of(group) for name, group in groups.items()}

    @functools.wraps(command)
    def gather(**values: object) -> object:
        gathered = {}
        for name, group in groups.items():
            given = {option.name: values.pop(option.name) for option in options[name]}
            gathered[name] = group(_chosen(given)) if _is_choices(group) else group(**given)
        return command(**values, **gathered)

    parameters = [it.replace(kind=inspect.Parameter.KEYWORD_ONLY) for it in own]
    parameters += [option for group in options.values() for option in group]
    gather.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    gather.__annotations__ = {it.name: it.annotation for it in parameters} | {"return": None}
    return gather  # type: ignore[return-value]


def _is_group(annotation: Any) -> bool:  # noqa: ANN401 - any annotation of a parameter
    return is_dataclass(annotation) or _is_choices(annotation)


def _is_choices(annotation: Any) -> bool:  # noqa: ANN401 - any annotation of a parameter
    return isinstance(annotation, type) and issubclass(annotation, Choices)


def _chosen(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _options_of(group: Any) -> list[inspect.Parameter]:  # noqa: ANN401 - dataclasses have no common type
    if _is_choices(group):
        return [_setting_option(name, group) for name in USES if name not in group.left_out]
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


@functools.cache
def _setting_hints() -> dict[str, Any]:
    return get_type_hints(Settings)


def _setting_option(name: str, group: type[Choices]) -> inspect.Parameter:
    use, option = USES[name], option_name(name)
    hint = _setting_hints()[name]
    (kind,) = {*get_args(hint)} - {type(None)} or {hint}
    names = f"--{option}/--no-{option}" if kind is bool else f"--{option}"
    text = f"{use.help} Default: {group.default_of(name)}."
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, typer.Option(names, min=use.least, max=use.most, help=text)],
    )
