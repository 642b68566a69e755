"""Frames in; APPLIED, DUPLICATE, REFUSED or WITHDRAWN out, exactly once.

One SQLite database is the broker side's only commit point: what it says has happened. Knows nothing of
MQTT; the acknowledgement comes after its commit. LEDGER.md says why that is enough, and what is not promised.
"""
