"""Models as ONNX files: written, compared with the original, and shown in a browser."""
