"""The device's tests and one training round on an emulated Cortex-A53, without root: see `tools/arm64 --help`."""
