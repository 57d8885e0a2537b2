"""The logger of the library: what was loaded and by which runtime, and where memory was short. Never a text."""

from __future__ import annotations

import logging

logger = logging.getLogger("embrief")
# As libraries do: an application that sets no logging up sees nothing of it.
logger.addHandler(logging.NullHandler())
