"""What is learned in the comparison: data, splits, models and starts, each with its source and licence.

Knows nothing of schemes, bytes or rounds. Everything that varies is drawn from a seed, so that the runs of different
schemes with one seed share split and start.
"""
