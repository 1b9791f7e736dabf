"""Runs one machine's installation: embedded servers, set-up and processes.

Nothing here imports Django: the supervisor must be able to say what is wrong with an installation
whose settings don't load. ``python -m portal.core.supervisor start|stop`` is the way in.
"""
