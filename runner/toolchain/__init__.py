"""The inputs of the toolchain: pins, the source of the models tree, image inputs, and their digest."""
