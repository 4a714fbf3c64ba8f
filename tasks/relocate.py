"""Puts right what a home says of its own place, after it was copied, moved, or restored elsewhere."""

from tasks.config.services import services_file
from tasks.config.settings import Home
from tasks.registry.locations import move_locations, move_manifests, roots_elsewhere


def relocate(home: Home) -> list[str]:
    """Let its records name its own files; a sentence on each place that they named.

    The manifests come first and the database last, in one transaction: until then the home is refused, and whoever was
    killed begins anew. The services that it records are those of the home that it is a copy of.
    """
    done = []
    for before in roots_elsewhere(home):
        manifests = move_manifests(home, before)
        services_file(home).unlink(missing_ok=True)
        moved = move_locations(home, before)
        done.append(f"{moved} records and {manifests} manifests named {before}, and name {home.root} now")
    return done
