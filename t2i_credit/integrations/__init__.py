"""Bridges to other training libraries, each behind its own pip extra; images need none of it."""
