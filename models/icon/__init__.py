"""ICON: states of each speaker feed a GRU over the whole history, whose memory the utterance reads in several hops."""
