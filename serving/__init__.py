"""Serving: scores with reasons, behind an endpoint and on pages, to each side what it may see."""
