"""Ways of tuning the foundation to a domain, one file each (Table I)."""
