-- Name servers that the endpoint asks for names outside, as a JSON array; the host's if empty.
ALTER TABLE endpoints ADD COLUMN servers TEXT NOT NULL DEFAULT '[]';
