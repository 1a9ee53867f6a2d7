"""Read, compare and verify ``.tflite`` files, and normalize the key order of TOCO's options."""
