"""The paper's tables and figures, reproduced with our own models, with seeds, intervals and floors."""
