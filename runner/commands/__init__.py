"""The commands, a module per group: each translates flags, calls one function and prints."""
