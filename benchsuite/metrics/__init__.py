"""The official metrics of each field as pure functions on arrays."""
