"""The formats that both sides share: values in, bytes out, and back.

FORMAT.md is normative. Decoding is total: from any bytes come a value or a `WireError`. Loads numpy and
the standard library, does no I/O, and has never heard of files, brokers or time.
"""
