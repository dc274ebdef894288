"""DialogueCRN: recurrences over the dialogue and over each speaker, then several turns of retrieving and reasoning."""
