"""Sources of documents: watched folders and databases, looked at by a schedule.

``settings`` says what a source is told, ``folders`` and ``sql`` read,
``runs`` makes documents of what they find.
"""
