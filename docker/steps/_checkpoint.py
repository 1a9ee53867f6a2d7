"""Write a checkpoint: assign values to the variables of a graph, and save them with the meta graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    import numpy as np


def save_checkpoint(tf: ModuleType, values: dict[str, np.ndarray], prefix: Path) -> None:
    """Give every variable of the default graph its value, and save them as ``prefix``.*.

    The meta graph does not depend on the run: it is serialized in one order, without devices.
    """
    saver = tf.train.Saver()
    with tf.Session() as session:
        assign(session, tf.global_variables(), values)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
    meta_graph = tf.train.export_meta_graph(saver_def=saver.as_saver_def(), clear_devices=True)
    prefix.with_name(f"{prefix.name}.meta").write_bytes(meta_graph.SerializeToString(deterministic=True))


def assign(session: Any, variables: list[Any], values: dict[str, np.ndarray]) -> None:  # noqa: ANN401
    """Assign all values in one run: each initializer is fed with the variable's value."""
    feeds = {variable.initializer.inputs[1]: values[variable.op.name] for variable in variables}
    session.run([variable.initializer for variable in variables], feeds)
