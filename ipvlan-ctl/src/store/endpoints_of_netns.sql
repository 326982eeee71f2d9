-- A connect asks which endpoints its namespace has already.
CREATE INDEX endpoints_of_netns ON endpoints (cookie);
