"""What a training run leaves behind: checkpoints, logs, words on the screen, an exported model."""
