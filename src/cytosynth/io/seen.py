"""Keys seen before, in any number: stored in a temporary file of the system, not in memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager


class Seen:
    """Names by key, each key with the first name it was seen with."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """Keep them in `database`, which is empty."""
        self.database = database
        database.execute("PRAGMA cache_size = -8000")  # KiB
        database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, name BLOB) WITHOUT ROWID")

    def first(self, key: str, name: str) -> str | None:
        """Return the name that `key` was seen with first, or None if that is now, with `name`."""
        if self.database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (_bytes(key), _bytes(name))).rowcount:
            return None
        (found,) = self.database.execute("SELECT name FROM seen WHERE key = ?", (_bytes(key),)).fetchone()
        return bytes(found).decode("utf-8", "surrogatepass")


def _bytes(name: str) -> bytes:
    """Return `name` as bytes, even if it is not valid text: names of files need not be."""
    return name.encode("utf-8", "surrogatepass")


@contextmanager
def seen() -> Iterator[Seen]:
    """Yield an empty `Seen`, which is gone when the block ends."""
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        yield Seen(database)
