"""Personal data: retention, erasure of receivers, and treatment of stored contact data."""
