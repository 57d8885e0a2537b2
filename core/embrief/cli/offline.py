"""Which models the commands use unless told otherwise: those that come with the package."""

from __future__ import annotations

from embrief.config.offline import OfflineModels, offline_models

__all__ = ["OfflineModels", "offline_models"]
