"""What `mer-bench new model` writes: a model that works as it stands, and the package around it."""
