"""New examples in; a bounded file of old and new ones on the disk, from which every round draws.

Survives power loss: a half-written example is never read. Knows nothing of where examples come from.
"""
