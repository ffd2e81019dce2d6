"""Typed settings: `schema` says which there are, `load` reads them, `presets/` holds ready ones."""
