"""Write a copy of a checkpoint with other tensors, in the toolchain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Session

OTHER_VALUES: Final = """
for name, values in tensors.items():
    if values.dtype == np.float32:
        tensors[name] = values * np.float32(0.9375)
"""
"""The same variables with other values; minima stay below maxima, variances above 0."""

CODE: Final = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import tensorflow.compat.v1 as tf
source, target, change = sys.argv[1:]
reader = tf.train.NewCheckpointReader(source)
tensors = {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}
exec(change)
names = sorted(tensors)
save = tf.raw_ops.SaveV2(
    prefix=target, tensor_names=names, shape_and_slices=[""] * len(names),
    tensors=[tf.constant(tensors[name]) for name in names],
)
tf.Session().run(save)
"""


def write_altered(session: Session, source: Path, target: Path, change: str = OTHER_VALUES) -> Path:
    """Change ``tensors`` of the checkpoint ``source``, write it to the prefix ``target``, and return that.

    ``change`` is Python code; ``tensors`` maps names to arrays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    done = session.run("env", "python3", "-c", CODE, str(source), str(target), change)
    assert done.exit_code == 0, done.stderr[-20:]
    return target
