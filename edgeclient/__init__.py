"""The device: learns from data that never leaves it and uploads a few kilobytes when nobody minds.

One folder is one stage of the data's way; `agent.py` is where they meet.
"""

from typing import Final

__version__: Final = "0.2.0"
