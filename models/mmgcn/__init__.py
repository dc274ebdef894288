"""MMGCN: a deep graph convolution over the utterances of a dialogue in every modality."""
