"""Keeping the aggregator's store: backup, restore, examination, and the devices' accounts against the ledger."""
