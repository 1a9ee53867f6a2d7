"""Convert a frozen graph with TOCO, by the native tool's own flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner import console
from runner.scripts.run import Script, ScriptOptions, ScriptRun, require_output, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Session
    from runner.recipes.recipe import InferenceType

LOG_NAME: Final = "toco.log"


@dataclass(frozen=True, kw_only=True)
class TocoRequest:
    """One graph to convert. What is None or empty is not said to TOCO, and so stays its own default.

    ``input_shape`` is NHWC; ``mean_value`` and ``std_value`` say how quantized input relates to real values:
    ``real = (quantized - mean) / std``. ``more_flags`` are native flags, passed on as they are.
    """

    graph: Path
    output: Path
    inference_type: InferenceType
    input_array: str
    input_shape: tuple[int, ...]
    output_arrays: tuple[str, ...]
    mean_value: float | None
    std_value: float | None
    options: ScriptOptions
    more_flags: tuple[str, ...] = ()


def run_toco(session: Session, request: TocoRequest) -> ScriptRun:
    """Convert a frozen graph into ``request.output``, exactly as TOCO writes it.

    Raises:
        ScriptError: TOCO failed; its log and last lines are on the error.
        OutputMissingError: TOCO succeeded and wrote nothing.
        EngineError: the engine died in the middle.
    """
    script = Script(
        name="toco",
        argv=toco_argv(request),
        log_name=LOG_NAME,
        options=request.options,
    )
    with console.step("convert with TOCO", of=request.options.label):
        result = run_script(session, script)
    require_output(request.output, script)
    return ScriptRun(script=script, result=result)


def toco_argv(request: TocoRequest) -> tuple[str, ...]:
    """Return the published command line, with this request's paths and numbers."""
    flags = {
        "input_file": str(request.graph),
        "output_file": str(request.output),
        "input_shapes": ",".join(map(str, request.input_shape)),
        "input_arrays": request.input_array,
        "output_arrays": ",".join(request.output_arrays),
        "inference_type": request.inference_type.value,
    }
    if request.mean_value is not None:
        flags["mean_values"] = f"{request.mean_value:g}"
    if request.std_value is not None:
        flags["std_values"] = f"{request.std_value:g}"
    return (
        "toco",
        *(f"--{name}={value}" for name, value in flags.items()),
        "--allow_custom_ops",
        *request.more_flags,
    )
