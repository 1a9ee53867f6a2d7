"""Engines that run the toolchain: the interface (``base``), the server client (``session``), two engines."""
