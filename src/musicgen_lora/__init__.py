"""LoRA fine-tuning of MusicGen, from a folder of audio to a measured adapter."""

__version__ = "0.1.0"
