"""The search service: what changes an index while it is served, and what shows its photos."""
