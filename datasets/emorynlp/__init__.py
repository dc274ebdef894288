"""EmoryNLP: multi-party scenes from the television series Friends, text alone, seven emotions."""
