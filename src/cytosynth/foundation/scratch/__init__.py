"""Training the small bundled foundation from scratch: autoencoder, text encoder, denoiser."""
