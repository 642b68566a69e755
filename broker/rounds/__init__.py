"""Admitted contributions in; a batch, when it is full or due, out.

Decides when a round closes. A pure function of counts and times: knows neither ledger nor models.
"""
