"""The one exception of this suite."""


class Failed(Exception):
    """Something is other than a test expects."""
