"""Chat endpoints that speak OpenAI's protocol: teachers, judges, and models to evaluate."""
