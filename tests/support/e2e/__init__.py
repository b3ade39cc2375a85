"""Specs, data and waiting for the end-to-end tests."""
