"""Measurements that the claims of the README rest on; each is a command."""
