"""Made-up dialogues in the shape of MELD, for machines without MELD and for tests with a known answer."""
