-- Pools that were promised to another engine, whose network it is about to make.
CREATE TABLE promises (
    subnet TEXT PRIMARY KEY,
    range  TEXT,
    -- Seconds since the epoch.
    since  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
