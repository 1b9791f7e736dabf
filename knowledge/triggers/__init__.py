"""Triggers: apps started by a schedule, or by events about which rules say what matters."""
