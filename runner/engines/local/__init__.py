"""Run the toolchain without a container, in an environment of a CPython 3.7."""
