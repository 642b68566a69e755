"""A pytest plugin for processors that are twenty times slower: fewer examples where a test does not say how many."""

from hypothesis import HealthCheck, settings

settings.register_profile("emulated", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("emulated")
