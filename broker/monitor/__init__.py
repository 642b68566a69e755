"""All of the stages in; what people want to know about the fleet out.

Looks on: knows the ledger's answers and what passes over MQTT, and changes nothing.
"""
