"""Files: what may come in, and the text that is in them.

``checks`` refuses by looking, in this process; ``reading`` has a child process take a file apart,
because a file may be made to exhaust whoever reads it. Nothing of this knows Django's models.
"""
