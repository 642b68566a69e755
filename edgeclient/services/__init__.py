"""A command in; files of a system and what it is told out, so that the command runs without anybody starting it.

Writes only what it can take back. Knows nothing of models, MQTT or stores; both sides' `install` stand on it.
"""
