"""The comparison: schemes of the field on tasks of the literature, with the product's own frames, rounds and sums."""
