"""How this toolchain imports TensorFlow 1.15: without a GPU, without notes about its own age."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Iterator


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow in here.

    It uses numpy and collections in ways that were deprecated after it, once per data type; and with a GPU
    allowed it looks for a driver that no image of ours has.
    """
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
