"""Parameters and bundles in; immutable files named by their SHA-256 out.

Written once, verified at every reading. Knows nothing of rounds or of MQTT.
"""
