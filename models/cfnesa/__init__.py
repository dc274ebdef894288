"""CFN-ESA: recurrent encoders of one modality each, cross-modal attention around the text, and emotion shifts."""
