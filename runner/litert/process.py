"""Run a ``.tflite`` in LiteRT on one input after the other; ``worker.py`` starts this as a subprocess.

Usage: process.py MODEL.tflite THREADS XNNPACK KEEP [TENSOR...], with XNNPACK and KEEP 1 or 0

Each TENSOR is a tensor index. With KEEP 1, all tensors keep their values, so TENSOR can be any tensor, but
XNNPACK is off. With KEEP 0, LiteRT reuses the memory of most tensors, so TENSOR must be an input or an output
of the last operator.

For each run, the caller writes the values of all input tensors to stdin, and this program writes a message to
stdout: the length of the rest in 8 bytes, the duration in seconds as a float64, and the given tensors (by
default the outputs) in NumPy's format. A first message, before any run, contains the time that loading took
and, as its only array, the number of input bytes per run.

If LiteRT rejects the file, the exit code is 3 and the last line of stderr is the reason.
"""

from __future__ import annotations

import io
import struct
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import (  # type: ignore[import-untyped] # ships no types
    Interpreter,
    OpResolverType,
)


def answer(seconds: float, outputs: list[np.ndarray]) -> None:
    """Write one message."""
    content = io.BytesIO()
    for output in outputs:
        np.lib.format.write_array(content, output, allow_pickle=False)
    message = struct.pack("<d", seconds) + content.getvalue()
    sys.stdout.buffer.write(struct.pack("<Q", len(message)) + message)
    sys.stdout.buffer.flush()


model, threads, xnnpack, keep, *wanted = sys.argv[1:]
resolver = OpResolverType.BUILTIN if xnnpack == "1" else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
try:
    started = time.perf_counter()
    interpreter = Interpreter(
        model,
        num_threads=int(threads),
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=keep == "1",
    )
    interpreter.allocate_tensors()
    seconds = time.perf_counter() - started
    inputs = interpreter.get_input_details()
    outputs = list(map(int, wanted)) or [detail["index"] for detail in interpreter.get_output_details()]
    sizes = [int(np.prod(each["shape"])) * np.dtype(each["dtype"]).itemsize for each in inputs]
    answer(seconds, [np.array(sum(sizes))])
    while given := sys.stdin.buffer.read(sum(sizes)):
        start = 0
        for each, size in zip(inputs, sizes, strict=True):
            values = np.frombuffer(given[start : start + size], each["dtype"]).reshape(each["shape"])
            interpreter.set_tensor(each["index"], values)
            start += size
        started = time.perf_counter()
        interpreter.invoke()
        seconds = time.perf_counter() - started
        answer(seconds, [interpreter.get_tensor(index) for index in outputs])
except (RuntimeError, ValueError) as problem:
    reason = " ".join(str(problem).split()) or type(problem).__name__
    sys.stderr.write(f"\n{reason}\n")
    sys.exit(3)
