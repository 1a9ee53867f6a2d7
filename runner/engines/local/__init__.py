"""Run the toolchain without a container, in a virtual environment of CPython 3.7."""
