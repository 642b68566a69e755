"""Model versions in; retained announcement and blob chunks out.

Says which messages the fleet must be able to find on the broker, and which may go.
"""
