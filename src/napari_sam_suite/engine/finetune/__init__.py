"""Fine-tuning: a model learns the user's own shapes."""
