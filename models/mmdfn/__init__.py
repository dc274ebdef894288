"""MM-DFN: a graph over utterances and modalities whose layers are joined by the gates of an LSTM."""
