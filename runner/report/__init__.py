"""One page about converted files, for people who would rather look than read; and the same data as JSON."""
