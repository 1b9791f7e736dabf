"""Scenarios: apps with their knowledge, triggers, sample data and labelled evaluation sets."""
