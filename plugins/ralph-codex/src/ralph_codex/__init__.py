"""Ralph's adapter for OpenAI Codex."""
