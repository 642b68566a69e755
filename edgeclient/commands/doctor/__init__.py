"""Looks at a device and says what is there, what is missing and what to do: `edgeclient doctor`.

In: the installation, the board, a configuration. Out: findings, and short measurements. It changes nothing, and
knows nothing of rounds.
"""
