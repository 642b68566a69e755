"""A fleet in one process with virtual time: the product's own stages from local round to version, no MQTT, no disk.

In: a bundle, data, settings of a task. Out: what its versions are worth, and what they cost. A root of its own.
"""
