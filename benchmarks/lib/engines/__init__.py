"""What ``engines.py`` and ``engine_way.py`` measure, each contender in a process of its own."""
