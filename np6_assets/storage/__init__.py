"""Where Parquet goes: files that are swapped in whole, and the IO manager that gives them to assets."""
