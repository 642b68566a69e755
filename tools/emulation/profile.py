"""A pytest plugin for processors that are many times slower: of each property so many examples, whatever it says."""

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES: Final = 40

settings.register_profile("emulated", max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("emulated")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Properties with more examples than that, named beside the test, get so many too."""
    for item in items:
        test: Any = getattr(item, "obj", None)
        own = getattr(test, "_hypothesis_internal_use_settings", None)
        if isinstance(own, settings) and own.max_examples > EXAMPLES:
            test._hypothesis_internal_use_settings = settings(own, max_examples=EXAMPLES)  # noqa: SLF001
