"""Training: the encoder, the face-region stage and the instruction stage."""
