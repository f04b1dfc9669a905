"""Figure 2 as code: generate, detect, choose, edit, check, write."""
