"""Fine-tuning for self-correction: examples, mixtures, checkpoints (§3.5). Training itself is axolotl's, in an environment of its own."""
