"""Run the scripts of the toolchain, keep their logs, and explain their failures."""
