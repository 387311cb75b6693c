"""Golden model: what the gateware computes, bit for bit, in NumPy.

All numbers are bit patterns: ``uint16`` for binary16, ``uint32`` for binary32.
"""
