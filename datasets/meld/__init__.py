"""MELD: multi-party conversations from the television series Friends, seven emotions."""
