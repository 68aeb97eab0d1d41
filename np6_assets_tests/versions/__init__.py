"""The package as its users install it, a wheel, in environments of their own; see `__main__.py`."""
