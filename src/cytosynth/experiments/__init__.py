"""The paper's tables and figures, made again from our own models, with seeds, intervals and floors."""
