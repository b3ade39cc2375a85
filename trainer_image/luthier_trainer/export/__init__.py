"""The trained model in other formats than safetensors, each compared with the model on real texts.

`exporter` writes and judges ONNX and int8; `onnx_model` runs a file; `int8` quantizes one.
"""
