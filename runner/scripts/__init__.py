"""Run one script of the toolchain, keep its log, and explain its failure."""
