"""From stored results to tables, claims and pages."""
