"""Keeps frames and the residual through power loss, in one commit.

Frames and a new residual in; pending frames and the live residual out. Stores bytes and has never heard
of gradients or MQTT.
"""
