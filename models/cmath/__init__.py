"""CMATH: cross-modality augmented transformer with hierarchical variational distillation."""
