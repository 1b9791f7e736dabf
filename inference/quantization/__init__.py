"""Weights of 8 and 4 bits: how they are packed, written, measured, loaded and computed with.

``description`` and ``gate`` do without torch; everything else is imported where torch is.
"""
