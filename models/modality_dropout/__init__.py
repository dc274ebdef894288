"""Modality dropout: a wrapper that trains any registered model on dialogues with missing modalities."""
