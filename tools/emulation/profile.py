"""A pytest plugin for processors that are twenty times slower: hypothesis looks at fewer examples.

The host's run looks at all of them; here the same code is checked on another processor.
"""

from typing import Any, Final

from hypothesis import HealthCheck, settings

EXAMPLES: Final = 30
_init = settings.__init__


def _capped(self: settings, *arguments: Any, **given: Any) -> None:
    """A profile does not reach tests that say how many they want."""
    if isinstance(wanted := given.get("max_examples"), int):
        given["max_examples"] = min(wanted, EXAMPLES)
    _init(self, *arguments, **given)


settings.register_profile(
    "emulated", max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("emulated")
settings.__init__ = _capped  # type: ignore[method-assign]
