"""Pairing from outside and the truth about a pairing: the commands `pair` and `evaluate`, and what they read."""
