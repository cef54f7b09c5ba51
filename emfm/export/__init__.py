"""Models in the formats of other programs: ONNX and bioimage.io. Needs the extra `emfm[export]`."""
