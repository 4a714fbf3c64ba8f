"""What Tandem's files said when they were deployed last, kept in the deployment.

By it a change of a file is told apart from one that a person made in Prefect's page.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.records import known_fields

VARIABLE = "TANDEM_DEPLOYED"
"""In the environment of a deployment's runs, which read from it what they are deployed with."""
Things = Mapping[str, Any]
"""By name, such as `config.gate.min_queries`: what is set there. A thing that is not set is not in it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was deployed."""

    file: str
    """The configuration; empty where the deployment has none."""
    written: dict[str, Any]
    """What stands in it."""
    things: dict[str, Any]
    """What the deployment was set to."""
    listed_in: str = ""
    """The file that lists the deployments; empty where an older Tandem deployed it."""
    listed: dict[str, Any] = field(default_factory=dict)
    """What stands about it there, as `read_listed` reads it; nothing where that is not known."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)


def read_record(environment: Mapping[str, Any] | None) -> Record | None:
    """From the variables of a deployment or a run; None where an older Tandem deployed it."""
    kept = (environment or {}).get(VARIABLE)
    return Record(**known_fields(Record, json.loads(kept), f"the variable {VARIABLE}")) if kept else None


def read_written(file: Path) -> dict[str, Any]:
    """What stands in a configuration, as JSON would keep it; nothing where it cannot be read."""
    try:
        values = json.loads(json.dumps(yaml.safe_load(file.read_text(encoding="utf-8")), default=str))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def read_listed(file: Path, flow: str, name: str) -> dict[str, Any]:
    """What the file that lists the deployments says of one; nothing where it is not in it, or cannot be read."""
    written = read_written(file)
    own = next((each for each in listed_in(written) if (each.get("flow"), each.get("name")) == (flow, name)), None)
    if own is None:
        return {}
    pools = [pool for pool in written.get("work_pools") or [] if isinstance(pool, dict)]
    pool = next((pool for pool in pools if pool.get("name") == own.get("work_pool", "cpu")), {})
    return own | {"timezone": written.get("timezone"), "work pool": {"limit": pool.get("limit")}}


def listed_in(written: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The deployments of such a file."""
    return [each for each in written.get("deployments") or [] if isinstance(each, dict)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their whole names; a list is one setting."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key.replace("%", "%25").replace(".", "%2E")
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def unflatten(things: Things) -> dict[str, Any]:
    """The reverse of `flatten`."""
    nested: dict[str, Any] = {}
    for name, value in sorted(things.items()):
        *groups, key = (part.replace("%2E", ".").replace("%25", "%") for part in name.split("."))
        inner = nested
        for group in groups:
            inner[group] = inner.get(group) or {}  # a group that was empty may have something now
            inner = inner[group]
        inner[key] = value
    return nested


def settle(base: Things, file: Things, server: Things) -> tuple[dict[str, Any], list[str]]:
    """What is to hold, and the names of what a person changed on the server, which is kept.

    `base` is what was deployed last. A thing that the file changed since then is as in the file, whatever the server
    says.
    """
    names = sorted(file.keys() | server.keys())
    kept = [name for name in names if _same(base, file, name) and not _same(server, file, name)]
    held = {name: value for name, value in file.items() if name not in kept}
    return held | {name: server[name] for name in kept if name in server}, kept


def differences(record: Record) -> dict[str, list[str]]:
    """By file, the names of what stands otherwise in it than it was deployed; none of a file that is gone."""
    found = {}
    if record.file:
        found[record.file] = _changed(record.written, read_written(Path(record.file)))
    if record.listed:
        own = record.listed
        found[record.listed_in] = _changed(own, read_listed(Path(record.listed_in), own["flow"], own["name"]))
    return {file: names for file, names in found.items() if names}


def _changed(deployed: Mapping[str, Any], written: Mapping[str, Any]) -> list[str]:
    if not written:
        return []
    before, after = flatten(deployed), flatten(written)
    return [name for name in sorted(before.keys() | after.keys()) if not _same(before, after, name)]


def say_kept(whose: str, names: Iterable[str], file: Things, held: Things) -> list[str]:
    """A sentence for each thing that is as a person set it."""
    return [
        f"{whose}: kept as set in Prefect: {name} is {_show(held, name)}, and {_show(file, name)} in the file"
        for name in names
    ]


def _show(things: Things, name: str) -> str:
    return json.dumps(things[name], default=str) if name in things else "not set"


def _same(one: Things, other: Things, name: str) -> bool:
    return (name in one, one.get(name)) == (name in other, other.get(name))
