"""The client that the official suite runs: Toolgate, with an SDK's client before it that does what a scenario wants."""
