"""A typed client of Dify: its console, and its service APIs for knowledge and for apps.

It is synchronous, for its callers are: the tasks of the io workers and the web UI's pages. Apps
answer on an event loop, too, where the calls of many users are carried on.
"""
