"""Announcement in; a verified, activated model out, ready for training.

Collects blob chunks, checks every digest, and switches between two slots. Does no MQTT itself.
"""
