"""Ralph's adapter for agents that speak the Agent Client Protocol (https://agentclientprotocol.com)."""
