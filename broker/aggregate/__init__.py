"""A batch and the current parameters in; new parameters out.

Weight × fixed-point mean × server step. The sum of a batch is bit-identical whatever the order.
"""
