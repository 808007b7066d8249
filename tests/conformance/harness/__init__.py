"""Starts servers and gateways, has the official suite check them, and says what was lost between the two."""
