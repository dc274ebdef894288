"""CMN: an utterance reads, in several hops, from memories of what its speaker and what the others said before."""
