"""A batch and the current parameters in; new parameters out.

Weight × fixed-point mean × server step, as associative `add` and pure `finish`: the sum of a batch is bit-identical
whatever the order.
"""
