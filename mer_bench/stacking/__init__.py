"""Several seeds of one experiment trained together, in one pass.

The seeds' parameters lie on top of each other, `(seeds, ...)`, and one forward and one backward pass serve all of
them (`torch.func.vmap`); the batch is shared, so that the seeds share the order of batches too. All else is each
seed's own: its weights, its random numbers, its optimiser, its clipped gradient, its chosen epoch, its record.

calls.py     what PyTorch's functions do in a stacked pass: random numbers, attention
network.py   N models -> one network
trial.py     does a model stack? a pass of it, stacked and apart
training.py  epochs, until the last seed has ended
running.py   one command -> N records
"""
