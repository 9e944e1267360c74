"""What is fixed before anything runs: hyperparameters, paths, class names, sectors."""
