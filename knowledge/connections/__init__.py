"""Connections to Dify: made, checked, shared, watched, and opened for what works through them."""
