"""Whether and where the web page of `edgebroker serve` is; its packages are loaded only when it is wanted."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from broker.monitor.watch import Watch
from broker.page.gate import Gate, read_token
from broker.settings import Aggregator, Monitor
from edgeclient.settings import ConfigError

_LOG = logging.getLogger(__name__)


@contextmanager
def watching(settings: Aggregator) -> Iterator[Watch]:
    """A watch whose counts are served as long as the block lasts, or one that looks away when that is switched off.

    Without a [monitor] in the file a note takes the place of an error.

    Raises:
        ConfigError: the address cannot be used, a token is needed, or a package is missing.
    """
    monitor = settings.monitor or Monitor()
    with ExitStack() as stack:
        watch = Watch()
        if monitor.enabled:
            try:
                watch = stack.enter_context(_served(settings, monitor))
            except ConfigError as error:
                if settings.monitor is not None:
                    raise
                _LOG.warning("no web page: %s", error)
        yield watch


@contextmanager
def _served(settings: Aggregator, monitor: Monitor) -> Iterator[Watch]:
    try:
        from broker.page.routes import reading  # noqa: PLC0415
        from broker.page.server import serving  # noqa: PLC0415 (packages of an extra, for those who want the page)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"aiohttp", "prometheus_client"}:
            raise
        raise ConfigError(f"[monitor] needs {error.name}: pip install '.[broker]' in the clone") from None
    gate = Gate(read_token(monitor.host, monitor.token_file), monitor.names)
    with (
        reading(settings.ledger, settings.registry) as (metrics, site),
        serving(monitor.host, monitor.port, replace(site, base=monitor.base_path), gate) as url,
    ):
        _LOG.info("web page on %s, metrics on %s/metrics", url + monitor.base_path, url)
        yield metrics
