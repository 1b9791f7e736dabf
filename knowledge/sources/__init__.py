"""Sources of documents: watched folders and databases, looked at by a schedule.

``settings`` says what a source is told, ``folders``, ``sql`` and ``mongo`` read one each,
``runs`` makes documents of what they find.
"""
