"""Look at everything a conversion needs, and report what is missing and what to do about it."""
