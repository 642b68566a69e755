"""The state of a device → what people are told: status, last will, Home Assistant.

Knows nothing of how the state came about.
"""
