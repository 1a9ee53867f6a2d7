"""What makes an export faster and leaves its result alone: each has a name and can be switched off.

RUNNER_SPEEDUPS holds names with commas between them, or ``none``. A job has those that its own environment
asks for. The server itself has all of its own unless its environment says otherwise.
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
    """A name that is not known here."""


def apply_to_server(value: str | None) -> None:
    """Do what has to be done before the imports.

    Raises:
        UnknownSpeedupError: one of the names is not known.
    """
    for name in read_names(",".join(OF_SERVER) if value is None else value):
        OF_SERVER.get(name, _leave)()


def apply_to_job(value: str) -> None:
    """Do what has to be done before a script runs, in the process that is forked for it.

    Raises:
        UnknownSpeedupError: one of the names is not known.
    """
    for name in read_names(value):
        OF_JOB.get(name, _leave)()


def read_names(value: str) -> list[str]:
    """Read names with commas between them; ``none`` and nothing at all are none.

    Raises:
        UnknownSpeedupError: one of them is not known.
    """
    names = [] if value in ("", NONE) else value.split(",")
    unknown = sorted(set(names) - set(OF_SERVER) - set(OF_JOB))
    if unknown:
        raise UnknownSpeedupError(
            f"{VARIABLE}: there is no {unknown[0]!r}, only {', '.join([*OF_SERVER, *OF_JOB])}"
        )
    return names


def _leave() -> None:
    """Do nothing: it is for the other process."""


# --- in the server, before it imports anything -------------------------------------------------------------


LATE_MODULES = (
    "object_detection.utils.visualization_utils",
    "object_detection.matchers.hungarian_matcher",
    "object_detection.meta_architectures.deepmac_meta_arch",
)


def import_late() -> None:
    """Import what draws boxes on images, a matcher of training, and DeepMAC when they are first used.

    They bring matplotlib, scipy's optimizers and the Keras that is not TensorFlow's; an export of an SSD uses
    none of them.
    """
    for name in filter(_is_there, LATE_MODULES):  # not every commit has them all
        package, _, attribute = name.rpartition(".")
        late = _LateModule(name)
        sys.modules[name] = late
        setattr(importlib.import_module(package), attribute, late)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even its package
        return False


class _LateModule(types.ModuleType):
    """Stands where a module will be, and hands on what is asked of it.

    Not importlib's LazyLoader: with that, an ``import`` of the module is a first use already.
    """

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 - whatever the module has
        # Who looks through all modules asks for such names.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


def use_plain_distutils() -> None:
    """Import the standard library's ``distutils``, of which TensorFlow wants a class for version numbers.

    setuptools would put its own copy in that place, and bring all of itself along.
    """
    if _is_there("_distutils_hack"):
        importlib.import_module("_distutils_hack").remove_shim()


def import_contrib_by_parts() -> None:
    """Let ``tensorflow.contrib`` be a folder of packages: its own ``__init__`` imports all seventy of them.

    The detection API names the few that it uses in full, quantize above all.
    """
    core = importlib.util.find_spec("tensorflow_core")
    if core is None:
        return
    contrib: Any = types.ModuleType("tensorflow.contrib")
    contrib.__path__ = [str(Path(folder, "contrib")) for folder in core.submodule_search_locations or ()]
    sys.modules["tensorflow.contrib"] = contrib


# --- in a job, before its script runs ----------------------------------------------------------------------


def write_no_graph_text() -> None:
    """Leave ``tflite_graph.pbtxt`` empty: 47 MB of text that takes a second to write and nobody reads."""
    from tensorflow.core.framework.graph_pb2 import GraphDef

    # The one function that the export script calls to make the text, in the one module that makes it.
    library: Any = importlib.import_module("object_detection.export_tflite_ssd_graph_lib")
    library.str = lambda value: "" if isinstance(value, GraphDef) else builtins.str(value)


def restore_without_optimizer() -> None:
    """Restore and read the variables without optimizing the graph around them first.

    In that session values are copied and nothing is computed, so there is nothing to gain. The other session
    of an export, which computes the anchors, is as it was.
    """
    from tensorflow.core.protobuf.config_pb2 import ConfigProto
    from tensorflow.python.client import session
    from tensorflow.python.tools import freeze_graph

    config = ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    freeze_graph.session = types.SimpleNamespace(Session=functools.partial(session.Session, config=config))


def remember_signatures() -> None:
    """Look at the signature of a function once, not each time it is called.

    TensorFlow's deprecation wrappers do, around functions that are called for each node of a graph.
    """
    from tensorflow.python.util import tf_inspect

    inspect_anew = tf_inspect.getfullargspec
    remembered = functools.lru_cache(maxsize=None)(inspect_anew)

    def getfullargspec(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - what it replaces returns
        try:
            return remembered(function)
        except TypeError:  # not hashable, or without a signature
            return inspect_anew(function)

    tf_inspect.getfullargspec = getfullargspec


# --- in both ----------------------------------------------------------------------------------------------


def collect_no_garbage() -> None:
    """Do not look for reference cycles: modules and graphs under construction are full of them and keep them.

    The server starts again to do so when its imports are done.
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
