"""MQTT messages in; frames, withdrawals and hellos, or the reason why not, out.

Decodes and judges what devices send. Knows nothing of the ledger or of models.
"""
