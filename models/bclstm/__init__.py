"""bc-LSTM: contextual LSTMs over the utterances of a video, one a modality and one over all of them."""
