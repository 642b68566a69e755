"""Topics and payloads in, events out: the one place that speaks MQTT (paho-mqtt).

Keeps the connection alive and counts its bytes. Knows nothing of frames, models or storage.
"""
