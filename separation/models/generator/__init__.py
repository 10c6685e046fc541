"""Modules of generate.py: one for each kind of model, and `graph`, which writes ONNX for all of them."""
