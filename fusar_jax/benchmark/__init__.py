"""The same work for two implementations, measured in turn."""
