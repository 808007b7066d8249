"""The two eras of MCP, each by its newest version."""

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
