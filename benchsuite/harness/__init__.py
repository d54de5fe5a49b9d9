"""From a request to stored results: plan, execute, store."""
