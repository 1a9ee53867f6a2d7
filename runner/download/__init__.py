"""Bring what was published onto this machine, and trust none of it before it is checked."""
