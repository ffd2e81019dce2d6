"""`retool report`: `recipe` is where to start reading."""
