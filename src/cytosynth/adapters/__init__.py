"""Methods of tuning a foundation to a domain with few weights: one file each, all subclasses of `adapter.Adapter`."""
