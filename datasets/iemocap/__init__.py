"""IEMOCAP: acted two-party dialogues in five sessions, improvised and scripted."""
