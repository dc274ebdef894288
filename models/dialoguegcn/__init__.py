"""DialogueGCN: a recurrent context, a graph of speaker relations within a window, attention over the dialogue."""
