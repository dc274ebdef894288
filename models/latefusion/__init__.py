"""Late fusion: an MLP for each modality on one utterance, their logits averaged with learned weights."""
