"""Ralph's adapter for Gemini CLI."""
