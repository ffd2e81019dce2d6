"""Typed settings: `schema` says which there are, `notation` how they are written, `load` reads them.

`presets/` holds ready ones.
"""
