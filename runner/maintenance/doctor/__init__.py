"""Check everything that a conversion needs, and report what is missing and how to fix it."""
