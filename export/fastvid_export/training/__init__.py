"""What every training shares: material, losses, the loop, checkpoints."""
