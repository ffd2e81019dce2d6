"""`retool compare`: `recipe` is where to start reading."""
