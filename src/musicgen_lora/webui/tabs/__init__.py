"""A module a tab."""
