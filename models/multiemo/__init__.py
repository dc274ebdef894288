"""MultiEMO: a DialogueRNN a modality, cross-attention between them, and losses of correlation and contrast."""
