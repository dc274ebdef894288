"""mer-bench: compare models of multimodal emotion recognition in conversation, fairly and fast."""

__version__ = "0.1.0"
