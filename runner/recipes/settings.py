"""The settings of a conversion, and how the program uses each of them.

The `SettingUse` of a field defines its command-line option, the edit of the pipeline config, the flag of the
export script, and the option of TFLite's detection operator. Every field is included in the cache key, the
provenance, the commands that `explain` prints, and `--dry-run`. docs/architecture.md describes how to add a
setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value = bool | int | float
SUPPRESSION: Final = "model.ssd.post_processing.batch_non_max_suppression"


class Nms(str, Enum):
    """The kinds of non-maximum suppression that TFLite's detection operator supports."""

    REGULAR = "regular"
    FAST = "fast"


class Export(str, Enum):
    """The ways to make the frozen graph."""

    SCRIPT = "script"
    TEMPLATE = "template"


@dataclass(frozen=True, kw_only=True)
class SettingUse:
    """How a setting is used by each part of the program; None means that the part does not use it.

    ``least`` and ``most`` bound the value. ``encode`` converts it to the value that is passed to the scripts.
    """

    help: str
    least: float | None = None
    most: float | None = None
    config_field: str | None = None
    export_flag: str | None = None
    operator_option: str | None = None
    encode: Callable[[Any], Value] | None = None

    @property
    def changes_file(self) -> bool:
        """Whether the ``.tflite`` depends on this setting."""
        return self.config_field is not None or self.export_flag is not None


def _setting(default: Any, help: str, **use: Any) -> Any:  # noqa: ANN401 - what a field can hold
    return field(default=default, metadata={"use": SettingUse(help=help, **use)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a conversion. None keeps the value that is in the pipeline config."""

    score_threshold: float | None = _setting(
        None,
        "Drop detections with a lower score.",
        least=0.0,
        most=1.0,
        config_field=f"{SUPPRESSION}.score_threshold",
        operator_option="nms_score_threshold",
    )
    nms_iou_threshold: float | None = _setting(
        None,
        "Of two boxes of a class that overlap by more than this, drop the one with the lower score.",
        least=0.0,
        most=1.0,
        config_field=f"{SUPPRESSION}.iou_threshold",
        operator_option="nms_iou_threshold",
    )
    nms: Nms = _setting(
        Nms.REGULAR,
        "The kind of non-maximum suppression.",
        export_flag="use_regular_nms",
        operator_option="use_regular_nms",
        encode=lambda nms: nms is Nms.REGULAR,
    )
    max_detections: int = _setting(
        10,
        "The maximum number of detections.",
        least=1,
        export_flag="max_detections",
        operator_option="max_detections",
    )
    export: Export = _setting(
        Export.SCRIPT,
        "How the frozen graph is made: `script` runs the export script; `template` fills in a graph that the "
        "script has already exported from another checkpoint with the same config.",
    )
    keep_pbtxt: bool = _setting(False, "Keep the 47 MB text form of the graph.")
    check: bool = _setting(True, "Check that the file computes what its graph computes.")


USES: Final[Mapping[str, SettingUse]] = {it.name: it.metadata["use"] for it in fields(Settings)}
"""The use of each setting, by name."""


def check_bounds(settings: Settings) -> None:
    """Check that every number is within the bounds of its setting.

    Raises:
        UsageError: a number is out of range.
    """
    for name, use in USES.items():
        value = getattr(settings, name)
        if value is None or (use.least is None and use.most is None):
            continue
        least = -math.inf if use.least is None else use.least
        most = math.inf if use.most is None else use.most
        if not least <= value <= most:
            raise UsageError(
                f"{name} = {value} is out of range", tip=f"use a value from {least:g} to {most:g}"
            )


def config_edits(settings: Settings) -> Mapping[str, Value]:
    """Return the edits of the pipeline config, as field paths with their values."""
    return {use.config_field: value for use, value in _encoded(settings) if use.config_field is not None}


def export_flags(settings: Settings) -> tuple[str, ...]:
    """Return the flags for the export script."""
    encoded = ((use.export_flag, value) for use, value in _encoded(settings))
    return tuple(f"--{flag}={as_text(value)}" for flag, value in encoded if flag is not None)


def operator_options(settings: Settings) -> Mapping[str, Value]:
    """Return the resulting options of the detection operator in the ``.tflite``."""
    encoded = ((use.operator_option, value) for use, value in _encoded(settings))
    return {option: value for option, value in encoded if option is not None}


def command_line(settings: Settings, base: Settings, *, only_file_changing: bool = False) -> list[str]:
    """Return the options of this program's command line that turn ``base`` into ``settings``."""
    options: list[str] = []
    for name, use in USES.items():
        value, option = getattr(settings, name), option_name(name)
        if value == getattr(base, name) or (only_file_changing and not use.changes_file):
            continue
        if isinstance(value, bool):
            options.append(f"--{option}" if value else f"--no-{option}")
        else:
            options += [f"--{option}", f"{value:g}" if isinstance(value, float) else str(_plain(value))]
    return options


def option_name(name: str) -> str:
    """Return the command-line name of a setting."""
    return name.replace("_", "-")


def to_json(settings: Settings) -> dict[str, object]:
    """Return all settings as JSON data, with camel-case keys as in the provenance."""
    return {_camel_case(name): _plain(getattr(settings, name)) for name in USES}


def from_json(entry: Mapping[str, Any]) -> Settings:
    """Read the settings in a provenance; missing settings get their defaults.

    Raises:
        ValueError: a value is invalid.
    """
    values: dict[str, Any] = {name: entry[_camel_case(name)] for name in USES if _camel_case(name) in entry}
    for name, kind in (("nms", Nms), ("export", Export)):
        if name in values:
            values[name] = kind(values[name])
    return Settings(**values)


def as_text(value: Value | str) -> str:
    """Format a value for protobuf's text format and for the flags of the scripts."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _encoded(settings: Settings) -> list[tuple[SettingUse, Value]]:
    """Return each setting that is not None, with its value for the scripts."""
    values = ((use, getattr(settings, name)) for name, use in USES.items())
    return [(use, use.encode(value) if use.encode else value) for use, value in values if value is not None]


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
