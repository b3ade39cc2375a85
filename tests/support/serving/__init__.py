"""Doubles for the server's tests: models that answer each text differently, clients that disconnect."""
