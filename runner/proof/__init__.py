"""Find out where a file comes from: ``prove``, ``recover``, ``match`` and ``explain``."""
