"""The web page and the series for Prometheus over HTTP: what monitor and ledger know, shown.

Changes nothing.
"""
