"""M3Net: hyperedges over modalities and over turns, and beside them a graph that passes low and high frequencies."""
