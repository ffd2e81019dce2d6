"""The stages: the only place where the parts meet. Each reads from top to bottom like a recipe."""
