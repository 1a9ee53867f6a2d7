"""The commands, one module per group. Each command reads flags, calls one function and prints."""
