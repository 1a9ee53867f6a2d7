"""Run a ``.tflite`` in LiteRT and save the values of some tensors; ``run.py`` starts this as a subprocess.

Usage: process.py MODEL.tflite FEEDS.npy OUTPUTS.npz TENSOR...

OUTPUTS has one array per tensor, in the given order, with one row per feed. If LiteRT rejects the file, the
exit code is 3 and the last line of stderr is the reason.
"""

from __future__ import annotations

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

model, feeds, outputs, *tensors = sys.argv[1:]
try:
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    collected = []
    for feed in np.load(feeds, allow_pickle=False):
        interpreter.set_tensor(entry, feed[np.newaxis])
        interpreter.invoke()
        collected.append([interpreter.get_tensor(int(tensor)) for tensor in tensors])
except (RuntimeError, ValueError) as problem:
    reason = " ".join(str(problem).split()) or type(problem).__name__
    sys.stderr.write(f"\n{reason}\n")
    sys.exit(3)
np.savez(outputs, *(np.concatenate(rows) for rows in zip(*collected, strict=True)))
