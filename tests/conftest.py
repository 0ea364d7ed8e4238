"""Settings of the whole test suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Cores are shared with the very processes under test: a slow example says nothing.
settings.register_profile("stress", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stress")
