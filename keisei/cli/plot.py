"""`keisei plot`."""
