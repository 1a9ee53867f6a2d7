"""Import TensorFlow 1.15 without a GPU and without deprecation warnings."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Iterator


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Suppress warnings while TensorFlow is imported in this context.

    TensorFlow 1.15 uses parts of numpy and collections that were deprecated later, and warns for each data
    type. The GPU is disabled because TensorFlow would otherwise look for a driver, which the image lacks.
    """
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
