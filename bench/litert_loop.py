"""Run a float detector on all images in a folder, in a simple loop without parallelism.

    python bench/litert_loop.py FILE DIR

One process, one thread, one image after the other: decode and resize with Pillow, run, read the outputs.
`bench.py` compares the speed of `evaluate` with this loop.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

file, folder = sys.argv[1:]
interpreter = Interpreter(file, num_threads=1)
interpreter.allocate_tensors()
(entry,) = interpreter.get_input_details()
outputs = interpreter.get_output_details()
_, height, width, _ = entry["shape"]
found = []
for path in sorted(Path(folder).iterdir()):
    picture = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    values = (np.asarray(picture, np.float32) - 127.5) / 127.5
    interpreter.set_tensor(entry["index"], values[np.newaxis])
    interpreter.invoke()
    found.append([interpreter.get_tensor(it["index"]) for it in outputs])
sys.stdout.write(f"{len(found)}\n")
