"""The conversion pipeline: edit the config, freeze the graph, run TOCO, normalize the key order."""
