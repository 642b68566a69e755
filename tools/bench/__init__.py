"""Measurements, kept beside the code they speak of: `python -m tools.bench COMMAND --help`."""
