"""The protocols: one module a task."""
