"""Parameters and local batches in; delta (flat float32: local - base) and num_examples out.

The one place that imports onnxruntime. Knows nothing of compression, MQTT or the aggregator.
"""
