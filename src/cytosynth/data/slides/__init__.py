"""Reading whole slides: by region, at a working scale in micrometres per pixel, in bounded memory."""
