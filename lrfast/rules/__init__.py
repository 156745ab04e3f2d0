"""The rules once more: specification in NumPy, and the class, of one family a file."""
