"""The laboratory: digits, replay, demonstration, tables, benchmark. The robot needs none of it."""
