"""A name in, blocks of examples that fit the model out: files, folders, tables, queries, functions.

Knows nothing of rounds, and nothing of what is done with the examples.
"""
