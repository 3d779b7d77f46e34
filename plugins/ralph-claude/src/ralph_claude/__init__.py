"""Ralph's adapter for Claude Code."""
