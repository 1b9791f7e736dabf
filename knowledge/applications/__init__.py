"""Apps: prompts, models and knowledge bases under a name that business systems call."""
