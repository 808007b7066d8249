"""The one exception of this suite."""


class Failed(Exception):
    """Something is other than a gate demands."""
