"""nginx before the page: on a path of its own, as it comes, and with TLS."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from secured import authority, running

NGINX: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NEEDS_NGINX: Final = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: tools/test")
NAME: Final = "fleet.example"
# / as nginx does it when nothing else is said: its own Host is the aggregator's address. /fleet/ is taken away,
# /kept/ is passed on.
_CONFIG: Final = """daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_processes 1; {user}
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
  uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  server {{
    listen 127.0.0.1:{port} {tls};
    location / {{ proxy_pass http://127.0.0.1:{page}; }}
    location /fleet/ {{ proxy_pass http://127.0.0.1:{page}/; proxy_set_header Host $host; }}
    location /kept {{ proxy_pass http://127.0.0.1:{page}; proxy_set_header X-Forwarded-Host $http_host; }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, page: int, *, tls: bool = False) -> Iterator[int]:
    """Before a page's port; its own."""
    assert NGINX is not None
    (folder / "t").mkdir(exist_ok=True)
    with_tls = ""
    if tls:
        authority(folder).issue("server", names=(NAME, "127.0.0.1"))
        with_tls = f"ssl; ssl_certificate {folder}/server.crt; ssl_certificate_key {folder}/server.key"
    # Started by root its workers would be a user that cannot write a folder of tests.
    user = "user root;" if os.geteuid() == 0 else ""

    def config(port: int) -> str:
        return _CONFIG.format(folder=folder, port=port, page=page, tls=with_tls, user=user)

    with running(folder, "nginx.conf", config, [NGINX, "-c"]) as port:
        yield port
