"""Storage: files that are replaced atomically, and the IO manager that writes and reads assets."""
