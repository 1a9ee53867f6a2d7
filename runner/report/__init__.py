"""Make an HTML page about converted files, and the same data as JSON."""
