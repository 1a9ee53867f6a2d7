"""TFLite's schema: the classes that FlatBuffers generates from it, shipped in the ``ai-edge-litert`` package.

Importing that package loads its native runtime into this process, which reading files does not need. So only
the file with the generated classes is executed.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING

__all__ = ["schema"]

if TYPE_CHECKING:
    from types import ModuleType

    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped] # ships no types


def _load_schema() -> ModuleType:
    package = find_spec("ai_edge_litert")
    assert package is not None, "ai-edge-litert is not installed"
    spec = PathFinder.find_spec("schema_py_generated", package.submodule_search_locations)
    assert spec is not None, "ai-edge-litert has no schema_py_generated.py"
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if not TYPE_CHECKING:
    schema = _load_schema()
