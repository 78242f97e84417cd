"""Arrays in, arrays out: atlases, confounds, cleaning, trials."""
