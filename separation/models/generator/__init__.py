"""The parts of generate.py: one module for each kind of model, and `graph`, which writes ONNX for all of them."""
