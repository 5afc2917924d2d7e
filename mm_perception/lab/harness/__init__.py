"""Processes and robots that tests, demonstration and benchmark share."""
