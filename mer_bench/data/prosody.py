"""The Praat measurements that one publisher offers for several corpora."""

PROSODY = (
    "duration",
    "avg_intensity",
    "intensity_variation",
    "avg_pitch",
    "pitch_std",
    "pitch_range",
    "articulation_rate",
    "mean_hnr",
)
"""Columns of the prosody files: seconds, dB, dB, Hz, Hz, Hz, syllables per second, dB."""
