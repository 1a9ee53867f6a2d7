"""Rebuild the published inference graph (``prove``), and explain a file in words (``explain``)."""
