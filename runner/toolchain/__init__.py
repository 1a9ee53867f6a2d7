"""The inputs of the toolchain: pins, source of the models tree, image inputs, one digest over all of them."""
