"""A typed client of Dify: its console, and its service API for knowledge.

It is synchronous, for its callers are: the tasks of the io workers and the web UI's pages.
"""
