"""Limits that every decoder checks before it takes memory (FORMAT.md, section 1)."""

from typing import Final

WIRE_VERSION: Final = 1  # of every message but the frame
FRAME_VERSION: Final = 1  # of the frame
MAX_SIZE: Final = 1 << 40  # n: parameters of one task
MAX_FRAME_BYTES: Final = 64 * 1024  # one MQTT message on `up`
MAX_CONTEXT_POSITIONS: Final = 1 << 20  # of one frame: they are coded one by one
MAX_ANNOUNCEMENT_BYTES: Final = 16 * 1024
MAX_CHUNK_BYTES: Final = 64 * 1024
MAX_RECEIPT_BYTES: Final = 16 * 1024
MAX_RECEIPT_LIST: Final = 1024  # sequences listed in one receipt, each kind
MAX_WITHDRAW_LIST: Final = 512  # frames in one WITHDRAW
MAX_STATUS_BYTES: Final = 8 * 1024
