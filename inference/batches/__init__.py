"""Batches: many requests in one file, run when there is room for them."""
