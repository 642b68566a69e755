"""Announcement in; a verified, activated model out, ready for training.

Asks a connection for the chunks that are missing, checks every digest, and switches between two slots.
"""
