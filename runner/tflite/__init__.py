"""Read and compare ``.tflite`` files, and take TOCO's dice out of them."""
