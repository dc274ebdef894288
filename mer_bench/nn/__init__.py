"""Blocks that several models share: encoders, graphs, fusion, losses."""
