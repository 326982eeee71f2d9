CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE networks (
    -- Also the network's number in the maps; never used twice.
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL UNIQUE,
    -- model::Network as JSON.
    body         TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'removing')),
    -- Ifindex of the parent in boot parent_boot; 0 until it is known.
    parent_index INTEGER NOT NULL DEFAULT 0,
    parent_boot  TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE endpoints (
    id           TEXT PRIMARY KEY,
    network      INTEGER NOT NULL REFERENCES networks (number),
    name         TEXT NOT NULL,
    -- JSON array.
    aliases      TEXT NOT NULL,
    slot         INTEGER NOT NULL UNIQUE,
    ifname       TEXT NOT NULL,
    netns        TEXT NOT NULL,
    -- The namespace: its number in ours, its cookie and its inode, in boot `boot`.
    nsid         INTEGER NOT NULL,
    cookie       INTEGER NOT NULL,
    inode        INTEGER NOT NULL,
    boot         TEXT NOT NULL,
    parent_index INTEGER NOT NULL,
    -- model::AddressPlan as JSON.
    addresses    TEXT NOT NULL,
    link_local   TEXT,
    state        TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'removing')),
    created      INTEGER NOT NULL,
    UNIQUE (network, name)
) STRICT;

-- An address is its bytes in network order; family is 4 or 6. It is leased once on a host,
-- whatever the network.
CREATE TABLE leases (
    family   INTEGER NOT NULL,
    address  BLOB NOT NULL,
    endpoint TEXT NOT NULL REFERENCES endpoints (id),
    PRIMARY KEY (family, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX leases_of_endpoint ON leases (endpoint);

-- The leases again as runs of consecutive addresses, so that skipping a run costs one look-up.
CREATE TABLE runs (
    family INTEGER NOT NULL,
    first  BLOB NOT NULL,
    last   BLOB NOT NULL,
    PRIMARY KEY (family, first)
) STRICT, WITHOUT ROWID;

-- The address handed out last, by subnet.
CREATE TABLE cursors (
    subnet  TEXT PRIMARY KEY,
    address BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Who is at work on which network or endpoint.
CREATE TABLE intents (
    -- Id of the network or endpoint.
    subject TEXT PRIMARY KEY,
    verb    TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    -- Start of the process in clock ticks since boot `boot` (proc(5), stat, field 22).
    started INTEGER NOT NULL,
    boot    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
