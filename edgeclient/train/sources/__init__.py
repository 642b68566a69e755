"""A name in, blocks of examples that fit the model out: files, folders, tables, queries, functions.

What is not there, or does not fit, is a DataError. Knows nothing of rounds.
"""
