"""Models for other processes: a SavedModel that serves image bytes, and ONNX, OpenVINO and LiteRT files that take pixels."""

from rw_keras.export.card import model_card
from rw_keras.export.converted import export_litert, export_onnx, export_openvino
from rw_keras.export.saved_model import export_saved_model

__all__ = ["export_litert", "export_onnx", "export_openvino", "export_saved_model", "model_card"]
