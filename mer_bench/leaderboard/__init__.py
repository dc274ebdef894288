"""Records and their predictions → tables → pages: a pure function, without torch and without data."""
