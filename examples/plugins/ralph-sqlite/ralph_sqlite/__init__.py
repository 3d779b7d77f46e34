"""The plugin `sqlite`. Imported by every `ralph` command, so what is heavy is in modules that are imported when they are used."""

from ralph_core import CheckpointStore, Provider, hookimpl


@hookimpl
def ralph_checkpoint_stores() -> list[Provider[CheckpointStore]]:
    return [
        Provider(
            "sqlite",
            "state in an SQLite database, no snapshots",
            "ralph_sqlite.store:SqliteStore",
            "ralph_sqlite.store:SqliteSettings",
        )
    ]
