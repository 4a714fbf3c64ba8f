"""Whether a server that a setting names is there at all, found out in seconds instead of after minutes of retries."""

import socket
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
ANSWER_SECONDS = 4.0


def reach(url: str) -> None:
    """Raises OSError if nothing listens at the address; a url without a host or a known port passes."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=ANSWER_SECONDS).close()
