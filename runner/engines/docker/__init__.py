"""Run the toolchain in a container. Only the modules of this folder import the Docker SDK."""
