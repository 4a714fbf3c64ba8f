"""``python -m tasks.takeover FILE URL``: all that Prefect keeps in an SQLite file, copied into an empty PostgreSQL.

Both have the tables of the same Prefect: the file's are brought up to date here, the other's before.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from prefect.server.database import provide_database_interface
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

ROWS = 1000
"""How many are written at a time."""


def main() -> None:
    file, url = sys.argv[1:]
    asyncio.run(take_over(file, url))


async def take_over(file: str, url: str) -> None:
    """All or nothing: one transaction."""
    database = provide_database_interface()
    await database.run_migrations_upgrade()
    tables = list(database.Base.metadata.tables.values())
    source, target = sa.create_engine(f"sqlite:///{file}"), create_async_engine(url)
    with closing(source.connect()) as old:
        async with target.begin() as new:
            # rows come in any order, and may name what somebody deleted meanwhile
            await new.execute(sa.text("SET LOCAL session_replication_role = replica"))
            for table in tables:
                await _copy(old, new, table)
        old.rollback()
        old.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")  # then all of it stands in one file
    await target.dispose()


async def _copy(old: sa.Connection, new: AsyncConnection, table: sa.Table) -> None:
    await new.execute(table.delete())  # what the migrations wrote is in the older one as well
    for rows in old.execute(table.select()).mappings().partitions(ROWS):
        await new.execute(table.insert(), list(_readable(rows)))


def _readable(rows: Any) -> Iterator[dict[str, Any]]:
    """Without the character 0, which PostgreSQL has no place for in a text."""
    for row in rows:
        yield {name: _without_zero(value) for name, value in row.items()}


def _without_zero(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, dict):
        return {_without_zero(key): _without_zero(each) for key, each in value.items()}
    return [_without_zero(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
