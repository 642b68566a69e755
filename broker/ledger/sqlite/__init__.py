"""The ledger in SQLite: one file, one writer. The only place on the broker's side where SQL stands."""
