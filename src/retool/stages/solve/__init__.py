"""`retool solve`: `recipe` is where to start reading."""
