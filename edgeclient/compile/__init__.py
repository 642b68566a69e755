"""Workstation only: an ONNX model in, a bundle out that the plain ONNX Runtime can train.

Knows nothing of MQTT, stores or rounds; the device never imports it.
"""
