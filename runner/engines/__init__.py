"""Where the toolchain runs: one contract (``base``), one way to talk to it (``session``), two engines."""
