"""Reading whole slides: by region, at a working scale in microns per pixel, in bounded memory."""
