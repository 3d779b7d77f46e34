"""Ralph's adapter for Q Chat and Kiro CLI."""
