"""Look after a machine: doctor looks at it, clean removes what the program left on it."""
