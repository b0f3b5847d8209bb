"""What all tests share: hypothesis keeps no stopwatch, for the machine may be busy with other work."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("cnnlab", deadline=None)
settings.load_profile("cnnlab")
