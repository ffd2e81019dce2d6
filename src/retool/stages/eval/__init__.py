"""`retool eval`: `recipe` is where to start reading."""
