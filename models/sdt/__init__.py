"""SDT: transformers within and between modalities, gated fusion, and a fusion that teaches its modalities."""
