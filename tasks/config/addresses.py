"""Addresses that people may read: configurations stand in MLflow, in Prefect and in every version's manifest.

So a password or a token is refused where an address is read, and taken off where libraries put one into a message.
"""

import re
from urllib.parse import parse_qsl, urlsplit

from tasks.errors import ConfigError

TOKEN_LENGTH = 20
"""A user name of so many characters in a web address is taken for an access token: GitLab's, the shortest, have 26."""
_SECRET_PARAMETER = re.compile(r"token|secret|passw|signature|credential|api[-_]?key|^(sig|key|pwd)$", re.IGNORECASE)


def secret_in(address: str) -> str:
    """What in the address is secret, as people call it; empty if nothing is."""
    if "://" not in address:
        return ""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""  # no address at all: whoever opens it says so
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if password:
        return "a password"
    if parts.scheme in ("http", "https") and len(user) >= TOKEN_LENGTH:
        return "an access token"
    named = [name for name, _ in parse_qsl(parts.query) if _SECRET_PARAMETER.search(name)]
    return f"the parameter {named[0]}" if named else ""


def shown(text: str) -> str:
    """An address, or a text with addresses in it, without users, passwords and queries.

    fsspec writes a third slash where it names a file of an address back.
    """
    return re.sub(r"(://[^\s?'\"]+)\?[^\s'\"]+", r"\1", re.sub(r"(?<=://)/?[^/\s]*@", "", text))


def checked_tracking_uri(uri: str) -> str:
    """Raises ConfigError for an address of MLflow that holds a password, or names another file in every folder."""
    refuse_secret(
        "MLFLOW_TRACKING_URI",
        uri,
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD for PostgreSQL",
    )
    if uri.startswith("sqlite:") and not uri.startswith("sqlite:////"):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is {uri}, which is another file in every folder: write sqlite:/// and an absolute "
            "path, with four slashes in all"
        )
    return uri


def refuse_secret(variable: str, address: str, instead: str) -> None:
    """Raises ConfigError, without repeating it, where the address in an environment variable holds a secret."""
    if what := secret_in(address):
        raise ConfigError(f"{variable} holds {what}, which logs would show: take it out, and {instead}")
