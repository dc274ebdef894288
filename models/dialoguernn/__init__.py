"""DialogueRNN: a global, a party and an emotion state that recur over the turns of a dialogue."""
