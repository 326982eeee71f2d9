-- Which endpoints were made, changed or removed, the newest last and only so many: for who
-- follows them, so that following costs as much as has changed. Written by triggers, since a
-- command may be killed at any time after it.
CREATE TABLE changes (
    number   INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL
) STRICT;

CREATE TRIGGER endpoint_made AFTER INSERT ON endpoints BEGIN
    INSERT INTO changes (endpoint) VALUES (new.id);
END;

CREATE TRIGGER endpoint_changed AFTER UPDATE ON endpoints BEGIN
    INSERT INTO changes (endpoint) VALUES (new.id);
END;

CREATE TRIGGER endpoint_removed AFTER DELETE ON endpoints BEGIN
    INSERT INTO changes (endpoint) VALUES (old.id);
END;

-- The newest one always stays, so that no number comes twice.
CREATE TRIGGER change_forgotten AFTER INSERT ON changes BEGIN
    DELETE FROM changes WHERE number <= new.number - 1024;
END;
