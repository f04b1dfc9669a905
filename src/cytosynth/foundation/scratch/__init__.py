"""Training the small bundled foundation from nothing: autoencoder, text encoder, denoiser."""
