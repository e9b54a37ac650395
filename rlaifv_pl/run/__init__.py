"""What a training run leaves behind. Reading order: checkpoint (to go on from), logs (one table, continued),
console and messages (words on the screen), export (a model out)."""
