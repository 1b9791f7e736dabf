"""What a model wrote, read as reasoning, text and calls of tools. Pure functions, no I/O."""
