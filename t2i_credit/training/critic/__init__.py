"""A critic of prefixes: what it is, what it learned, how far it is believed. See critic.py."""
