"""The conformance kit and the helpers for plugin tests."""
