"""Write a checkpoint: assign values to the variables of a graph and save them with the meta graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    import numpy as np


def save_checkpoint(tf: ModuleType, values: dict[str, np.ndarray], prefix: Path) -> None:
    """Assign the values to the variables of the default graph and save them as ``prefix``.*.

    The meta graph is the same in every run: it is serialized deterministically, without devices.
    """
    saver = tf.train.Saver()
    with tf.Session() as session:
        assign(session, tf.global_variables(), values)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
    meta_graph = tf.train.export_meta_graph(saver_def=saver.as_saver_def(), clear_devices=True)
    prefix.with_name(f"{prefix.name}.meta").write_bytes(meta_graph.SerializeToString(deterministic=True))


def assign(session: Any, variables: list[Any], values: dict[str, np.ndarray]) -> None:  # noqa: ANN401
    """Assign all values in one session run, by feeding them to the variables' initializers."""
    feeds = {variable.initializer.inputs[1]: values[variable.op.name] for variable in variables}
    session.run([variable.initializer for variable in variables], feeds)
