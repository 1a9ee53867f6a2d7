"""Optimizations that make an export faster without changing its result. Each can be switched off by name.

RUNNER_SPEEDUPS is a comma-separated list of names, or ``none``. A job uses the names in its own environment.
The server uses all server optimizations unless its environment sets the variable.
"""

from __future__ import annotations

import builtins
import functools
import gc
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, Callable, Mapping

VARIABLE = "RUNNER_SPEEDUPS"
NONE = "none"


class UnknownSpeedupError(ValueError):
    """RUNNER_SPEEDUPS contains an unknown name."""


def apply_to_server(value: str | None) -> None:
    """Apply the server's optimizations; call it before the imports.

    Raises:
        UnknownSpeedupError: a name is unknown.
    """
    for name in read_names(",".join(OF_SERVER) if value is None else value):
        OF_SERVER.get(name, _leave)()


def apply_to_job(value: str) -> None:
    """Apply a job's optimizations; call it in the forked process, before the script runs.

    Raises:
        UnknownSpeedupError: a name is unknown.
    """
    for name in read_names(value):
        OF_JOB.get(name, _leave)()


def read_names(value: str) -> list[str]:
    """Parse a comma-separated list of names; ``none`` and an empty string give an empty list.

    Raises:
        UnknownSpeedupError: a name is unknown.
    """
    names = [] if value in ("", NONE) else value.split(",")
    unknown = sorted(set(names) - set(OF_SERVER) - set(OF_JOB))
    if unknown:
        raise UnknownSpeedupError(
            f"{VARIABLE}: unknown name {unknown[0]!r}; known names: {', '.join([*OF_SERVER, *OF_JOB])}"
        )
    return names


def _leave() -> None:
    """Do nothing: the optimization applies to the other kind of process."""


# --- in the server, before it imports anything -------------------------------------------------------------


LATE_MODULES = (
    "object_detection.utils.visualization_utils",
    "object_detection.matchers.hungarian_matcher",
    "object_detection.meta_architectures.deepmac_meta_arch",
)


def import_late() -> None:
    """Import `LATE_MODULES` on first use instead of together with their package.

    They import matplotlib, scipy's optimizers and stand-alone Keras, none of which an SSD export uses.
    """
    for name in filter(_is_there, LATE_MODULES):  # not every commit has all of them
        package, _, attribute = name.rpartition(".")
        late = _LateModule(name)
        sys.modules[name] = late
        setattr(importlib.import_module(package), attribute, late)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its package does not exist either
        return False


class _LateModule(types.ModuleType):
    """A placeholder that imports the real module when an attribute is first used.

    importlib's LazyLoader does not work here: it loads the module already on ``import``.
    """

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 - the attribute may have any type
        # Code that inspects every module in sys.modules reads such names; this must not import the module.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


def use_plain_distutils() -> None:
    """Use the standard library's ``distutils``; TensorFlow needs only its class for version numbers.

    Otherwise setuptools would replace it with a copy of its own, and all of setuptools would be imported.
    """
    if _is_there("_distutils_hack"):
        importlib.import_module("_distutils_hack").remove_shim()


def import_contrib_by_parts() -> None:
    """Replace ``tensorflow.contrib`` with an empty package, because its ``__init__`` imports 70 subpackages.

    The detection API imports the subpackages that it uses by their full names, such as ``contrib.quantize``.
    """
    core = importlib.util.find_spec("tensorflow_core")
    if core is None:
        return
    contrib: Any = types.ModuleType("tensorflow.contrib")
    contrib.__path__ = [str(Path(folder, "contrib")) for folder in core.submodule_search_locations or ()]
    sys.modules["tensorflow.contrib"] = contrib


# --- in a job, before its script runs ----------------------------------------------------------------------


def write_no_graph_text() -> None:
    """Leave ``tflite_graph.pbtxt`` empty: its 47 MB of text take a second to write and are not used."""
    from tensorflow.core.framework.graph_pb2 import GraphDef

    # Only this module writes the text, and it does so by calling str() on the graph.
    library: Any = importlib.import_module("object_detection.export_tflite_ssd_graph_lib")
    library.str = lambda value: "" if isinstance(value, GraphDef) else builtins.str(value)


def restore_without_optimizer() -> None:
    """Disable the graph optimizer (Grappler) in the session that restores the variables.

    That session only copies values, so optimizing its graph has no benefit. The session that computes the
    anchors is not changed.
    """
    from tensorflow.core.protobuf.config_pb2 import ConfigProto
    from tensorflow.python.client import session
    from tensorflow.python.tools import freeze_graph

    config = ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    freeze_graph.session = types.SimpleNamespace(Session=functools.partial(session.Session, config=config))


def remember_signatures() -> None:
    """Cache function signatures.

    TensorFlow's deprecation wrappers inspect the signature on every call, and some of the wrapped functions
    are called for each node of a graph.
    """
    from tensorflow.python.util import tf_inspect

    inspect_anew = tf_inspect.getfullargspec
    remembered = functools.lru_cache(maxsize=None)(inspect_anew)

    def getfullargspec(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - as the function it replaces
        try:
            return remembered(function)
        except TypeError:  # not hashable, or without a signature
            return inspect_anew(function)

    tf_inspect.getfullargspec = getfullargspec


# --- in both ----------------------------------------------------------------------------------------------


def collect_no_garbage() -> None:
    """Disable the garbage collector, which would repeatedly traverse the many objects of modules and graphs.

    The server enables it again after its imports.
    """
    gc.disable()


OF_SERVER: Mapping[str, Callable[[], None]] = {
    "late-imports": import_late,
    "plain-distutils": use_plain_distutils,
    "contrib-by-parts": import_contrib_by_parts,
    "no-garbage-collection": collect_no_garbage,
}
OF_JOB: Mapping[str, Callable[[], None]] = {
    "no-graph-text": write_no_graph_text,
    "no-restore-optimizer": restore_without_optimizer,
    "remembered-signatures": remember_signatures,
    "no-garbage-collection": collect_no_garbage,
}
