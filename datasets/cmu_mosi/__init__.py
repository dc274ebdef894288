"""CMU-MOSI: one person speaks to a camera, text, audio and visual features, positive or negative."""
