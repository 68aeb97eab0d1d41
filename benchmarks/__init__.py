"""How fast the project is, and in how much memory, next to what people would use instead: `make bench`."""
