"""Convert a frozen graph with TOCO, using the flags of the native tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner import console
from runner.scripts.run import Script, ScriptOptions, ScriptRun, require_output, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Session
    from runner.recipes.recipe import InferenceType

LOG_NAME: Final = "toco.log"


def toco_argv(
    *,
    graph: str,
    output: str,
    inference_type: InferenceType,
    input_array: str,
    input_shape: tuple[int, ...] | None,
    output_arrays: tuple[str, ...],
    mean_value: float | None,
    std_value: float | None,
    more_flags: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Return MLCommons' published TOCO command line, with the given paths and numbers.

    A value of None is not passed to TOCO, which then uses its default (the shape in the graph, for example).
    ``input_shape`` is NHWC; ``mean_value`` and ``std_value`` define quantized input:
    ``real = (quantized - mean) / std``. ``more_flags`` are native flags, passed unchanged. They override the
    other arguments, so a flag that an error message suggests can simply be appended to the command.
    """
    flags = {
        "--input_file": graph,
        "--output_file": output,
        "--input_shapes": None if input_shape is None else ",".join(map(str, input_shape)),
        "--input_arrays": input_array,
        "--output_arrays": ",".join(output_arrays),
        "--inference_type": inference_type.value,
        "--mean_values": None if mean_value is None else f"{mean_value:g}",
        "--std_values": None if std_value is None else f"{std_value:g}",
    }
    words = (*(f"{name}={value}" for name, value in flags.items() if value is not None), "--allow_custom_ops")
    replaced = {_name(flag) for flag in more_flags} - {"--input_file", "--output_file"}
    return ("toco", *(word for word in words if _name(word) not in replaced), *more_flags)


def _name(flag: str) -> str:
    return flag.partition("=")[0]


def run_toco(session: Session, argv: tuple[str, ...], output: Path, options: ScriptOptions) -> ScriptRun:
    """Convert a frozen graph into ``output``, exactly as TOCO writes it.

    Raises:
        ScriptError: TOCO failed; the error contains the path of its log and its last lines.
        OutputMissingError: TOCO succeeded but wrote nothing.
        EngineError: the engine stopped during the run.
    """
    script = Script(name="toco", argv=argv, log_name=LOG_NAME, options=options)
    with console.step("convert with TOCO", of=options.label):
        result = run_script(session, script)
    require_output(output, script)
    return ScriptRun(script=script, result=result)
