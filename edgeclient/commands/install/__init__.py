"""A configuration in, files of systemd or Termux out, so that a device learns without anybody starting it.

Writes only what it can take back. Knows nothing of models, MQTT or stores.
"""
