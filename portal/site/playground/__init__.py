"""The playground: a page that talks to a model with a key of its own."""
