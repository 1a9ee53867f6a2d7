"""What the toolchain is made of: pins, the models tree, the files that go in, one digest over all."""
