"""MulT: each modality's stream is rewritten by what it finds in each other one, then looks at itself."""
