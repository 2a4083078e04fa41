"""How networks learn, whatever room they are from: tables and folds, weights from elsewhere, checkpoints, training."""
