"""Engines that run the toolchain: their interface, the client of the toolchain server, and two engines."""
