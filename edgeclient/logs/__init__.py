"""What both sides write for people and programs: `fields` names an update, `output` is a command line's half.

Whoever only logs loads `fields` alone.
"""
