"""`retool analyze`: `recipe` is where to start reading."""
