"""Ways of tuning a foundation to a domain with few weights: one file each, behind `adapter.Adapter`."""
