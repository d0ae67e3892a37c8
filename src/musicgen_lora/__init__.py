"""LoRA fine-tuning of MusicGen, from a folder of audio to a measured adapter."""

__version__ = "0.1.0"

EMBEDDED_NAME = "tiny-beats"
"""Stands for the base model that ships with the package, wherever a model is named."""
