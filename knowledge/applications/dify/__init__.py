"""Apps on Dify: rendered to its DSL, kept in step with it, and asked there."""
