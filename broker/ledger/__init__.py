"""Frames in; APPLIED, DUPLICATE or REFUSED out, exactly once.

One SQLite database is the broker side's only commit point: what it says has happened. Knows nothing of
MQTT; the acknowledgement comes after its commit.
"""
