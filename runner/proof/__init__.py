"""Show where a file comes from: rebuild the published graph, explain a file in words."""
