"""Pending frames in; what to publish now, or what to wait for, out; receipts settle them.

Moves bytes when conditions allow, and has never heard of SQLite.
"""
